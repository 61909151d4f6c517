from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, log_loss

from backend.segmentation.config import SegmentationConfig
from backend.segmentation.crops import Examples
from backend.segmentation.dice import dice
from backend.segmentation.predicting import predict
from backend.segmentation.training import BATCH, masked_loss, train
from backend.segmentation.unet import UNet, create

CLASSES = ("square", "left half of it")
ONES = np.ones(2, dtype=np.float32)
cpu_only = pytest.mark.skipif(torch.cuda.is_available(), reason="promised for the CPU only")


def weights_of(unet: UNet) -> torch.Tensor:
    return torch.cat([value.float().flatten().cpu() for value in unet.model.state_dict().values()])


def test_the_loss_is_scikit_learns_on_reviewed_pixels_alone() -> None:
    chance = torch.Generator().manual_seed(0)
    logits = 12 * (2 * torch.rand(3, 2, 8, 9, generator=chance).round() - 1)  # sure of all: soft Dice is Dice
    masks = torch.rand(3, 2, 8, 9, generator=chance).round()
    reviewed = torch.rand(3, 1, 8, 9, generator=chance).round()
    seen = reviewed.expand_as(masks) == 1
    expected = log_loss(masks[seen], logits[seen].double().sigmoid(), labels=[0, 1])
    scores = []
    for one in (0, 1):
        found, wanted = logits[:, one][seen[:, one]] > 0, masks[:, one][seen[:, one]] > 0
        scores.append((f1_score(wanted, found), int(found.sum() + wanted.sum())))
    expected += 1 - np.mean([(score * count + 1) / (count + 1) for score, count in scores])
    assert float(masked_loss(logits, masks, reviewed)) == pytest.approx(expected, rel=1e-3)


def test_what_is_not_reviewed_has_no_slope_and_nothing_reviewed_no_loss_but_dices_constant() -> None:
    logits = torch.randn(2, 1, 6, 6, requires_grad=True)
    masks = torch.ones(2, 1, 6, 6)
    reviewed = torch.zeros(2, 1, 6, 6)
    reviewed[:, :, :3] = 1
    masked_loss(logits, masks, reviewed).backward()
    assert logits.grad is not None and not logits.grad[:, :, 3:].any() and logits.grad[:, :, :3].all()
    nothing = torch.zeros_like(logits, requires_grad=True)
    loss = masked_loss(nothing, masks, 0 * reviewed)
    loss.backward()
    assert loss.isfinite() and nothing.grad is not None and not nothing.grad.any()


@cpu_only
def test_one_seed_gives_one_result(squares: Examples, config: SegmentationConfig) -> None:
    rows = np.arange(16)
    torch.manual_seed(1)
    first = weights_of(train(squares, rows, CLASSES, config, seed=5))
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert torch.equal(first, weights_of(train(squares, rows, CLASSES, config, seed=5)))
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(first, weights_of(train(squares, rows, CLASSES, config, seed=6)))


@cpu_only
def test_masks_that_nobody_reviewed_and_rows_not_asked_for_train_nothing(
    squares: Examples, config: SegmentationConfig
) -> None:
    reviewed = squares.reviewed.copy()  # type: ignore[attr-defined]
    reviewed[:, 20:] = 0
    reviewed[3] = 0
    expected = weights_of(train(squares._replace(reviewed=reviewed), np.arange(8), CLASSES, config, seed=0))
    masks, images = squares.masks.copy(), squares.images.copy()  # type: ignore[attr-defined]
    masks[:, :, 20:] = 1 - masks[:, :, 20:]
    masks[3], masks[8:], images[8:], images[3] = 1, 1, 255, 9
    others = Examples(images, masks, reviewed)
    assert torch.equal(expected, weights_of(train(others, np.arange(8), CLASSES, config, seed=0)))


def test_it_learns_overlapping_classes_and_reports_each_step(squares: Examples, config: SegmentationConfig) -> None:
    seen: list[tuple[int, int]] = []
    longer = replace(config, steps=40)
    unet = train(squares, np.arange(12), CLASSES, longer, 0, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(step, 40) for step in range(1, 41)]
    found = [predict([unet], ONES, image, "entropy", 64).probabilities > 0.5 for image in squares.images[12:]]  # type: ignore[index]
    scores = dice(np.stack(found), squares.masks[12:])  # type: ignore[index]
    assert scores[:, 0].mean() > 0.8


@cpu_only
def test_a_warm_start_goes_on_from_weights_and_leaves_them(squares: Examples, config: SegmentationConfig) -> None:
    start = create(config, CLASSES, seed=3)
    before = weights_of(start)
    found = train(squares, np.arange(16), CLASSES, config, seed=0, start=start)
    assert torch.equal(before, weights_of(start))
    refit = train(squares, np.arange(16), CLASSES, config, seed=0)
    near, far = (weights_of(found) - before).norm(), (weights_of(refit) - before).norm()
    assert 0 < near < far / 2
    with pytest.raises(ValueError, match=r"of square, left half of it, not of other"):
        train(squares, np.arange(16), ["other"], config, seed=0, start=start)


@cpu_only
def test_rows_are_drawn_as_often_as_asked_and_large_reviewed_images_more(config: SegmentationConfig) -> None:
    class Counted(list[np.ndarray]):
        """Counts how often an image is cut from."""

        def __init__(self, arrays: list[np.ndarray]) -> None:
            super().__init__(arrays)
            self.read = np.zeros(len(arrays), dtype=int)

        def __getitem__(self, row: int) -> np.ndarray:  # type: ignore[override]
            self.read[row] += 1
            return super().__getitem__(row)

    def drawn(frequency: np.ndarray | None) -> np.ndarray:
        sides = (32, 64, 32)
        images = Counted([np.zeros((side, side, 3), dtype=np.uint8) for side in sides])
        masks = [np.zeros((2, side, side), dtype=np.uint8) for side in sides]
        known = Examples(images, masks, [np.ones((side, side), dtype=np.uint8) for side in sides])
        train(known, np.arange(3), CLASSES, config, seed=0, frequency=frequency)
        return images.read - 1  # once for its size

    total = config.steps * BATCH
    np.testing.assert_allclose(drawn(None), total * np.array([1, 4, 1]) / 6, atol=1)
    np.testing.assert_allclose(drawn(np.array([1, 0, 3], dtype=np.float32)), total * np.array([1, 0, 3]) / 4, atol=1)


def test_nothing_reviewed_is_refused(squares: Examples, config: SegmentationConfig) -> None:
    nothing = squares._replace(reviewed=np.zeros((16, 40, 48), dtype=np.uint8))
    with pytest.raises(ValueError, match="nothing to train a U-Net on"):
        train(nothing, np.arange(16), CLASSES, config, seed=0)
