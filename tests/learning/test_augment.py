import torch

from backend.learning import augment as subject
from backend.learning.augment import augment, augment_with_masks


def test_the_same_seed_changes_images_the_same_way_and_another_does_not() -> None:
    images = torch.rand(4, 3, 16, 16)
    first = augment(images, torch.Generator().manual_seed(1))
    assert first.shape == images.shape
    assert torch.equal(first, augment(images, torch.Generator().manual_seed(1)))
    assert not torch.equal(first, augment(images, torch.Generator().manual_seed(2)))


def test_what_is_above_stays_above_and_nothing_leaves_the_image() -> None:
    images = torch.zeros(64, 3, 32, 32)
    images[:, :, 4:8, 14:18] = 1
    found = augment(images, torch.Generator().manual_seed(0))
    found = found - found.amin(dim=(2, 3), keepdim=True)
    rows = (found[:, 0].sum(dim=2) * torch.arange(32)).sum(dim=1) / found[:, 0].sum(dim=(1, 2))
    furthest = 32 * (subject.SHIFT + subject.SCALE / 2)
    assert ((rows - 5.5).abs() < furthest + 1).all() and (rows < 16).all()


def test_half_of_the_images_are_mirrored() -> None:
    images = torch.zeros(400, 3, 16, 16)
    images[:, :, :, :4] = 1
    found = augment(images, torch.Generator().manual_seed(0))
    mirrored = found[:, 0, :, 12:].mean(dim=(1, 2)) > found[:, 0, :, :4].mean(dim=(1, 2))
    assert 0.4 < mirrored.float().mean() < 0.6


def test_masks_move_with_their_images_and_nothing_comes_in_from_outside() -> None:
    masks = torch.zeros(64, 2, 48, 48)
    masks[:, 0, 10:30, 5:20] = 1
    masks[:, 1] = 1
    images = masks[:, :1].expand(-1, 3, -1, -1)
    seen, moved = augment_with_masks(images, masks, torch.Generator().manual_seed(0))
    assert torch.equal(seen, augment(images, torch.Generator().manual_seed(0)))
    assert set(moved.unique().tolist()) == {0, 1}
    low, high = seen[:, 0].amin(dim=(1, 2), keepdim=True), seen[:, 0].amax(dim=(1, 2), keepdim=True)
    inside = (seen[:, 0] - low) / (high - low) > 0.5
    assert (inside == (moved[:, 0] == 1)).float().mean() > 0.99
    # The second class is everywhere: where it is not after the move, the image was not either.
    assert 0.7 < moved[:, 1].mean() < 1
