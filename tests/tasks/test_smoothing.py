"""Smoothed masks: fewer integers, nearly the same shape, small parts kept."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from sklearn.metrics import f1_score

from tasks.rle import encode_mask
from tasks.smoothing import INTEGERS, LEAST_DICE, smooth


def ragged(seed: int, side: int = 256) -> Any:
    """A disc as a model's thresholded probabilities draw it, with a border full of teeth; and the smooth disc."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side]
    clean = (rows - side / 2) ** 2 + (columns - side / 2) ** 2 < (side / 3) ** 2
    rough = gaussian_filter(rng.normal(size=clean.shape), 0.8) * 0.5
    return gaussian_filter(clean.astype(float), 4) + rough > 0.5, clean


def dice(one: Any, other: Any) -> float:
    return float(f1_score(one.ravel(), other.ravel()))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_a_ragged_border_is_smoothed_until_it_fits(seed: int) -> None:
    mask, clean = ragged(seed)
    found = smooth(mask)
    assert len(encode_mask(mask.astype(np.uint8) * 255)) > INTEGERS
    assert found.integers == len(encode_mask(found.mask.astype(np.uint8) * 255)) <= INTEGERS
    assert found.dice == pytest.approx(dice(mask, found.mask)) and found.dice >= LEAST_DICE
    assert dice(clean, found.mask) > dice(clean, mask)
    assert found.radius > 0


def test_what_fits_is_left_as_it_is() -> None:
    _, clean = ragged(0)
    found = smooth(clean)
    assert found.mask is clean
    assert (found.dice, found.radius) == (1.0, 0.0)
    empty = smooth(np.zeros((9, 9), dtype=np.bool_))
    assert not empty.mask.any() and empty.dice == 1.0


def test_a_shape_that_needs_its_runs_keeps_its_shape() -> None:
    """1,400 rows have more runs than fit, however smooth; and thin lines would be gone."""
    rows, columns = np.mgrid[:2000, :2000]
    large = (rows - 1000) ** 2 + (columns - 1000) ** 2 < 700**2
    assert smooth(large).mask is large
    lines = np.zeros((400, 400), dtype=np.bool_)
    lines[:, ::8] = True
    assert smooth(lines).mask is lines


def test_a_small_part_that_matters_is_put_back_and_specks_are_not() -> None:
    mask, _ = ragged(1)
    mask[:60, :60] = False
    mask[10:40:10, 10:40:10] = True  # single pixels
    mask[2:5, 50:200] = True  # a thin line: as much as a hundredth of the whole
    found = smooth(mask, integers=500)
    assert found.radius >= 1.5
    assert found.mask[2:5, 60:190].all()
    assert not found.mask[:45, :45].any()
