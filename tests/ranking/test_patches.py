"""Patches beside brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from tasks.ranking import patches as subject
from tasks.ranking.patches import Patches, attention, border_of, candidates, choose, means

sizes = st.integers(1, 40)
seeds = st.integers(0, 2**31)


@given(sizes, sizes, st.integers(1, 20), st.integers(1, 20))
def test_candidates_lie_in_the_image_and_reach_its_far_edges(height: int, width: int, side: int, stride: int) -> None:
    found = candidates([(height, width)], side, stride)
    places = set(zip(found.top.tolist(), found.left.tolist(), strict=True))
    assert len(places) == len(found.top) and {(0, 0), (max(height - side, 0), max(width - side, 0))} <= places
    assert all(top <= max(height - side, 0) and left <= max(width - side, 0) for top, left in places)
    if stride <= side:
        covered = np.zeros((height, width), dtype=bool)
        for top, left in places:
            covered[top : top + side, left : left + side] = True
        assert covered.all()


@given(seeds, sizes, sizes, st.integers(1, 45), st.integers(1, 12))
def test_means_are_those_of_the_windows(seed: int, height: int, width: int, side: int, stride: int) -> None:
    values = np.random.default_rng(seed).random((height, width)).astype(np.float16)
    found = candidates([(height, width)], side, stride)
    expected = [
        values[top : top + side, left : left + side].sum(dtype=np.float64) / side**2
        for top, left in zip(found.top, found.left, strict=True)
    ]
    np.testing.assert_allclose(means(values, found.top, found.left, side), expected, rtol=1e-5, atol=1e-7)


@settings(deadline=None)
@given(seeds, sizes, sizes, st.integers(1, 3))
def test_attention_is_the_formula_whatever_the_bands(seed: int, height: int, width: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    unsure = rng.random((height, width)).astype(np.float16)
    probabilities = rng.random((classes, height, width)).astype(np.float16)
    foreground = probabilities.max(axis=0).astype(np.float32)
    window = 2 * subject.REACH + 1
    border = ndimage.maximum_filter(foreground, window, mode="nearest")
    border -= ndimage.minimum_filter(foreground, window, mode="nearest")
    expected = unsure * (0.2 + 0.4 * foreground + 0.4 * border)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subject, "BAND", 5)
        np.testing.assert_allclose(attention(unsure, probabilities), expected, atol=1e-3)
    mask = foreground > 0.5
    spread = np.ones((window, window), dtype=bool)
    inner = ndimage.binary_erosion(mask, spread, border_value=1)
    assert (border_of(mask) == (ndimage.binary_dilation(mask, spread) & ~inner)).all()


def test_what_matters_weighs_more_and_nothing_uncertain_weighs_nothing() -> None:
    unsure = np.full((60, 60), 0.5, dtype=np.float32)
    probabilities = np.zeros((1, 60, 60), dtype=np.float32)
    probabilities[0, :, 30:] = 1
    found = attention(unsure, probabilities)
    background, inside, border = found[30, 5], found[30, 50], found[30, 30]
    assert background == pytest.approx(0.1, abs=1e-3)
    assert inside == pytest.approx(0.3, abs=1e-3) and border == pytest.approx(0.5, abs=1e-3)
    assert not attention(np.zeros((60, 60), dtype=np.float32), probabilities).any()


def pixels_of(patches: Patches, row: int) -> set[tuple[int, int, int]]:
    lines = range(patches.top[row], patches.top[row] + patches.side)
    columns = range(patches.left[row], patches.left[row] + patches.side)
    return {(int(patches.image[row]), line, column) for line in lines for column in columns}


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.integers(2, 6), st.sampled_from([0.0, 0.3, 2.0]))
def test_the_choice_is_greedy_and_never_overlaps(seed: int, side: int, gamma: float) -> None:
    rng = np.random.default_rng(seed)
    patches = candidates([(9, 13), (4, 5)], side, 2)
    scores = rng.random(len(patches.image), dtype=np.float32)
    embeddings = rng.normal(size=(len(scores), 3)).astype(np.float32)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    found = choose(scores, patches, 6, embeddings, gamma)
    taken: set[tuple[int, int, int]] = set()
    chosen: list[int] = []
    for pick in [*found.order.tolist(), None]:
        free = [row for row in range(len(scores)) if not pixels_of(patches, row) & taken]
        novelty = {row: min([1.0, *(1 - float(unit[row] @ unit[other]) for other in chosen)]) for row in free}
        worth = {row: float(scores[row]) + gamma * max(novelty[row], 0) for row in free}
        if pick is None:
            assert len(chosen) == 6 or not free
            break
        assert worth[pick] >= max(worth.values()) - 1e-5
        assert found.score[len(chosen)] == pytest.approx(worth[pick], abs=1e-5)
        taken |= pixels_of(patches, pick)
        chosen.append(pick)


def test_without_embeddings_the_score_decides_and_spent_patches_stay_untouched() -> None:
    patches = candidates([(8, 8)], 4, 4)
    scores = np.array([4, 3, 2, 1], dtype=np.float32)
    assert choose(scores, patches, 9).order.tolist() == [0, 1, 2, 3]
    assert choose(scores, patches, 9, spent=[(0, 2, 0)]).order.tolist() == [1, 3]
    assert choose(scores, patches, 9, spent=[(1, 2, 0)]).order.tolist() == [0, 1, 2, 3]


def test_what_is_like_a_reviewed_patch_comes_later() -> None:
    patches = candidates([(4, 12)], 4, 4)
    embeddings = np.eye(3, dtype=np.float32)
    scores = np.array([0.2, 0.1, 0.0], dtype=np.float32)
    assert choose(scores, patches, 1, embeddings, 0.5).order.tolist() == [0]
    assert choose(scores, patches, 1, embeddings, 0.5, reference=embeddings[:1]).order.tolist() == [1]


def test_what_does_not_fit_together_is_named() -> None:
    patches = candidates([(8, 8)], 4, 4)
    with pytest.raises(ValueError, match="4 patches"):
        choose(np.zeros(3, dtype=np.float32), patches, 1)
    with pytest.raises(ValueError, match="finite"):
        choose(np.full(4, np.nan, dtype=np.float32), patches, 1)
    with pytest.raises(ValueError, match="2 embeddings for 4"):
        choose(np.zeros(4, dtype=np.float32), patches, 1, np.zeros((2, 3), dtype=np.float32))
    with pytest.raises(ValueError, match="not 0 and 1"):
        candidates([(8, 8)], 0, 1)
