"""Where to look: images whose uncertainty is known by construction."""

import numpy as np
import pytest

from backend.segmentation.config import SegmentationConfig
from backend.segmentation.looking import look, pooled, shortlist
from backend.segmentation.predicting import Maps
from backend.segmentation.unet import UNet, create
from tasks.mask_codec import Patch
from tasks.ranking.patches import attention

SIDE = 32


@pytest.fixture(scope="module")
def member(config: SegmentationConfig) -> UNet:
    return create(config, ("square",), seed=0)


def unsure_at(places: list[tuple[int, int, float]], height: int = 160, width: int = 200) -> Maps:
    """Maps that are unsure, as much as said, of the 16 pixels around each place (line, column), and of nothing else."""
    uncertainty = np.zeros((height, width), dtype=np.float16)
    for line, column, much in places:
        uncertainty[line - 8 : line + 8, column - 8 : column + 8] = much
    return Maps(np.full((1, height, width), 0.5, dtype=np.float16), uncertainty)


def noise(seed: int, height: int = 160, width: int = 200) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def holds(patch: Patch, line: int, column: int) -> bool:
    return patch.y <= line < patch.y + patch.height and patch.x <= column < patch.x + patch.width


def test_the_most_uncertain_places_come_first_with_their_mean_attention(member: UNet) -> None:
    maps = unsure_at([(40, 40, 0.9), (120, 150, 0.6)])
    found = look(maps, member, noise(0), 2, SIDE)
    assert holds(found[0], 40, 40) and holds(found[1], 120, 150)
    attended = attention(maps.uncertainty, maps.probabilities).astype(np.float64)
    for patch in found:
        assert (patch.width, patch.height) == (SIDE, SIDE)
        window = attended[patch.y : patch.y + SIDE, patch.x : patch.x + SIDE]
        assert patch.score == pytest.approx(window.mean(), rel=1e-3)


def test_what_was_reviewed_is_left_alone_whatever_its_size(member: UNet) -> None:
    maps = unsure_at([(40, 40, 0.9), (120, 150, 0.6)])
    spent = [Patch(30, 10, 11, 70)]
    found = look(maps, member, noise(0), 20, SIDE, spent)
    assert holds(found[0], 120, 150)
    reviewed = np.zeros((160, 200), dtype=bool)
    reviewed[10:80, 30:41] = True
    taken = np.zeros((160, 200), dtype=int)
    for patch in found:
        taken[patch.y : patch.y + patch.height, patch.x : patch.x + patch.width] += 1
    assert len(found) > 10 and taken.max() == 1 and not taken[reviewed].any()


def test_of_many_images_the_most_uncertain_patches_of_all(member: UNet) -> None:
    images = [unsure_at([(40, 40, 0.3)]), unsure_at([]), unsure_at([(100, 60, 0.9), (30, 150, 0.7)])]
    offers = [shortlist(maps, member, noise(seed), 3, SIDE) for seed, maps in enumerate(images)]
    found = pooled(offers, 3, SIDE)
    assert [image for image, _ in found] == [2, 2, 0]
    assert holds(found[0][1], 100, 60) and holds(found[1][1], 30, 150) and holds(found[2][1], 40, 40)


def test_of_patches_about_as_uncertain_the_one_unlike_the_others(member: UNet) -> None:
    image = np.zeros((160, 200, 3), dtype=np.uint8)
    image[96:, 128:] = noise(1)[96:, 128:]
    maps = unsure_at([(40, 40, 0.9), (40, 120, 0.9), (130, 160, 0.89)])
    first, second = look(maps, member, image, 2, SIDE)
    assert first.y < 64 and holds(second, 130, 160)
    (again,) = look(maps, member, image, 1, SIDE, [Patch(0, 100, SIDE, SIDE)])
    assert holds(again, 130, 160)  # what was reviewed is as plain as the first


def test_small_images_give_one_patch_cut_off_and_spent_ones_none(member: UNet) -> None:
    maps, image = unsure_at([(10, 10, 0.5)], 20, 40), noise(0, 20, 40)
    first = look(maps, member, image, 3, SIDE)
    assert [(patch.y, patch.height, patch.width) for patch in first] == [(0, 20, 32)]
    assert look(maps, member, image, 3, SIDE, [Patch(0, 0, 40, 20)]) == []
    nothing = shortlist(maps, member, image, 3, SIDE, [Patch(0, 0, 40, 20)])
    some = shortlist(maps, member, image, 3, SIDE)
    assert [image for image, _ in pooled([nothing, some], 2, SIDE)] == [1]
    assert pooled([], 2, SIDE) == []
