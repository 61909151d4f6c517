"""Where to look: images whose uncertainty is known by construction."""

import numpy as np
import pytest

from backend.segmentation import looking
from backend.segmentation.config import SegmentationConfig
from backend.segmentation.looking import look, pooled, shortlist
from backend.segmentation.predicting import Maps
from backend.segmentation.unet import UNet, create
from tasks.mask_codec import Patch
from tasks.ranking.patches import attention, candidates, means

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
    found = look(maps, member, noise(0), 20, SIDE, [Patch(30, 10, 11, 70)])
    reviewed = np.zeros((160, 200), dtype=bool)
    reviewed[10:80, 30:41] = True
    taken = np.zeros((160, 200), dtype=int)
    for patch in found:
        taken[patch.y : patch.y + patch.height, patch.x : patch.x + patch.width] += 1
    assert len(found) > 10 and taken.max() == 1 and not taken[reviewed].any()


def test_of_many_images_each_kind_by_its_attention_and_none_where_nothing_is_uncertain(member: UNet) -> None:
    shades = [np.full((160, 200, 3), grey, dtype=np.uint8) for grey in (0, 255)]
    images = [shades[0], noise(1), shades[1]]
    every = [unsure_at([(40, 40, 0.6)]), unsure_at([]), unsure_at([(100, 60, 0.9)])]
    offers = [shortlist(maps, member, image, SIDE) for maps, image in zip(every, images, strict=True)]
    found = pooled(offers, 3, SIDE)
    assert [image for image, _ in found] == [2, 0, 2]
    assert holds(found[0][1], 100, 60) and holds(found[1][1], 40, 40)


def test_a_kind_that_was_reviewed_comes_after_one_that_was_not(member: UNet) -> None:
    image = np.zeros((160, 200, 3), dtype=np.uint8)
    image[96:, 128:] = noise(1)[96:, 128:]
    maps = unsure_at([(40, 40, 0.9), (130, 160, 0.8)])
    spent = [Patch(0, 100, SIDE, SIDE), Patch(50, 100, SIDE, SIDE)]
    ((_, again),) = pooled([shortlist(maps, member, image, SIDE, spent)], 1, SIDE)
    assert again.y + SIDE > 96 and again.x + SIDE > 128  # both that were reviewed were plain


def test_large_images_offer_their_most_uncertain_patches(member: UNet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "MOST", 5)
    maps = unsure_at([(40, 40, 0.9), (120, 150, 0.6)])
    found = shortlist(maps, member, noise(0), SIDE)
    every = candidates([(160, 200)], SIDE, SIDE // 2)
    scores = means(attention(maps.uncertainty, maps.probabilities), every.top, every.left, SIDE)
    assert sorted(found.scores) == sorted(scores)[-5:]
    assert len(found.embeddings) == 5 and not len(found.reviewed)


def test_small_images_give_one_patch_cut_off_and_spent_ones_none(member: UNet) -> None:
    maps, image = unsure_at([(10, 10, 0.5)], 20, 40), noise(0, 20, 40)
    first = look(maps, member, image, 3, SIDE)
    assert [(patch.y, patch.height, patch.width) for patch in first] == [(0, 20, 32)]
    assert look(maps, member, image, 3, SIDE, [Patch(0, 0, 40, 20)]) == []
    nothing = shortlist(maps, member, image, SIDE, [Patch(0, 0, 40, 20)])
    some = shortlist(maps, member, image, SIDE)
    assert [image for image, _ in pooled([nothing, some], 2, SIDE)] == [1]
    assert pooled([], 2, SIDE) == []


def test_of_one_image_the_most_uncertain_place_is_always_shown(member: UNet) -> None:
    image = np.zeros((160, 200, 3), dtype=np.uint8)
    image[:, :100] = noise(1)[:, :100]  # unsure all over, and much larger than the spot
    maps = unsure_at(
        [(row, column, 0.2) for row in range(8, 160, 16) for column in range(8, 96, 16)] + [(80, 150, 0.9)]
    )
    first, *others = look(maps, member, image, 3, SIDE)
    assert holds(first, 80, 150)
    assert first.score == max(patch.score or 0.0 for patch in [first, *others])
    assert len(others) == 2
    for one in others:
        assert abs(one.y - first.y) >= SIDE or abs(one.x - first.x) >= SIDE
