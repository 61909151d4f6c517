"""Patches beside brute force."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from tasks.ranking import patches as subject
from tasks.ranking.kmeans import centres
from tasks.ranking.patches import Patches, attention, border_of, candidates, choose, highest, means

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
@given(st.integers(0, 2**31), st.integers(2, 6), st.integers(0, 3))
def test_the_choice_is_by_kind_as_written_out_plainly(seed: int, side: int, before: int) -> None:
    rng = np.random.default_rng(seed)
    patches = candidates([(9, 13), (4, 5)], side, 2)
    scores = rng.random(len(patches.image), dtype=np.float32)
    embeddings = rng.normal(size=(len(scores), 3)).astype(np.float32)
    reviewed = rng.normal(size=(before, 3)).astype(np.float32)
    found = choose(scores, patches, 6, embeddings, reviewed).tolist()
    middles = centres(embeddings, 6 + before, np.random.default_rng(0))
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    kind = (unit @ middles.T).argmax(axis=1)
    had = Counter((reviewed @ middles.T).argmax(axis=1).tolist())
    taken: set[tuple[int, int, int]] = set()
    for pick in found:
        free = [row for row in range(len(scores)) if not pixels_of(patches, row) & taken]
        share = {one: scores[kind == one].sum() / (1 + had[one]) for one in {int(kind[row]) for row in free}}
        assert pick in free and share[int(kind[pick])] >= max(share.values()) - 1e-3
        alike = [row for row in free if kind[row] == kind[pick]]
        alike.sort(key=lambda row: (-round(float(unit[row] @ middles[kind[row]]), 5), -scores[row]))
        typical = alike[: -(-len(alike) // 3)]
        assert pick in typical and scores[pick] == max(scores[typical])
        taken |= pixels_of(patches, pick)
        had[int(kind[pick])] += 1
    assert len(found) == 6 or all(pixels_of(patches, row) & taken for row in range(len(scores)))


def test_kinds_that_were_reviewed_come_later_and_those_nobody_need_look_at_last() -> None:
    patches = candidates([(4, 36)], 4, 4)
    embeddings = np.repeat(np.eye(3, dtype=np.float32), 3, axis=0)
    scores = np.array([0.2, 0.2, 0.3, 0.1, 0.2, 0.1, 0.0, 0.0, 0.0], dtype=np.float32)
    first, second, third = choose(scores, patches, 3, embeddings).tolist()
    assert (first // 3, second // 3) == (0, 1) and third // 3 in (0, 1)
    assert choose(scores, patches, 1, embeddings, embeddings[[0, 1]])[0] // 3 == 1
    nowhere = np.zeros_like(embeddings)
    assert choose(scores, patches, 3, nowhere).tolist() == [2, 0, 1]  # without a direction all are of one kind


def test_the_highest_are_those_of_a_plain_sort_where_none_overlap() -> None:
    patches = candidates([(8, 8)], 4, 4)
    scores = np.array([4, 3, 2, 5], dtype=np.float32)
    assert highest(scores, patches, 9).tolist() == [3, 0, 1, 2]
    close = candidates([(4, 8)], 4, 2)
    assert highest(np.array([1, 2, 1], dtype=np.float32), close, 9).tolist() == [1]


def test_what_does_not_fit_together_is_named() -> None:
    patches = candidates([(8, 8)], 4, 4)
    with pytest.raises(ValueError, match="4 patches"):
        highest(np.zeros(3, dtype=np.float32), patches, 1)
    with pytest.raises(ValueError, match="finite"):
        highest(np.full(4, np.nan, dtype=np.float32), patches, 1)
    with pytest.raises(ValueError, match="2 embeddings for 4"):
        choose(np.zeros(4, dtype=np.float32), patches, 1, np.zeros((2, 3), dtype=np.float32))
    with pytest.raises(ValueError, match="not 0 and 1"):
        candidates([(8, 8)], 0, 1)
