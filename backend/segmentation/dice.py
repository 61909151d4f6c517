"""How well masks agree: the Dice coefficient, 2 |A and B| / (|A| + |B|) (Dice 1945), also known as F1 of the pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_] | NDArray[np.uint8]
Scores = NDArray[np.float64]


def dice(predicted: Mask, truth: Mask, reviewed: Mask | None = None) -> Scores:
    """Dice (..., C) of masks (..., C, H, W), any value but 0 being inside; NaN for a class that is in neither.

    reviewed: (..., H, W), the pixels that count; None: all. Raises ValueError where the shapes differ.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"masks of {predicted.shape} and {truth.shape} cannot be compared")
    found, wanted = predicted != 0, truth != 0
    if reviewed is not None:
        seen = np.expand_dims(reviewed != 0, -3)
        found, wanted = found & seen, wanted & seen
    common = np.count_nonzero(found & wanted, axis=(-2, -1)).astype(np.float64)
    both = np.count_nonzero(found, axis=(-2, -1)) + np.count_nonzero(wanted, axis=(-2, -1))
    each: Scores = np.divide(2 * common, both, out=np.full(common.shape, np.nan), where=both > 0)
    return each


def mean_dice(scores: Scores) -> Scores:
    """The mean (C,) over images of their Dice (N, C); images that have a class in neither mask do not count for it.

    NaN for a class that is nowhere.
    """
    known = ~np.isnan(scores)
    counts = known.sum(axis=0)
    means: Scores = np.divide(np.nansum(scores, axis=0), counts, out=np.full(scores.shape[1], np.nan), where=counts > 0)
    return means
