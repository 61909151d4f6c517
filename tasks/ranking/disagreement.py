"""How strongly the model contradicts the label a task carries: the score that finds wrong labels."""

import numpy as np
from numpy.typing import NDArray

from tasks.schema import Head

Floats = NDArray[np.float32]


def disagreement(probabilities: Floats, targets: Floats, head: Head) -> Floats:
    """Score tasks by disagreement with their current label, float32 (N,) in [0, 1]: how far off it probably is.

    The mean distance, under the probabilities, of the true answer from the label. Single choice: 1 - p[label], the
    probability that it is wrong, which ranks as cleanlab's self-confidence does (Northcutt et al. 2021); ordinal head:
    the mean of |k - label| / (C - 1), so that two grades off counts twice; multiple choice: the share of the classes
    that are expected to be ticked or left wrongly.

    probabilities: (N, C), calibrated, rows summing to 1 unless the head is multiple-choice. targets: (N, C) of 0 and 1;
    a row of NaN means that the task carries no label for this head, and scores 0. Out-of-fold probabilities, please:
    a model that has seen the wrong label agrees with it.

    Raises ValueError where the shapes differ.
    """
    p = np.asarray(probabilities, dtype=np.float32)
    y = np.asarray(targets, dtype=np.float32)
    if p.shape != y.shape or p.ndim != 2:
        raise ValueError(f"Head {head.name!r}: probabilities are {p.shape} and targets {y.shape}; both are (N, C).")
    if head.multiple:
        expected = np.abs(p - np.nan_to_num(y)).mean(axis=1)
        labelled = ~np.isnan(y).any(axis=1)
    else:
        labelled = y.max(axis=1, initial=0) > 0  # false for NaN as well
        expected = (np.where(labelled[:, None], y, 0) @ _distances(p.shape[1], head.ordinal) * p).sum(axis=1)
    found: Floats = np.where(labelled, np.clip(expected, 0, 1), 0).astype(np.float32)
    return found


def _distances(classes: int, ordinal: bool) -> Floats:
    """(C, C): how far two answers are from each other, 1 at most."""
    if not ordinal:
        return 1 - np.eye(classes, dtype=np.float32)
    places = np.arange(classes, dtype=np.float32)
    far: Floats = np.abs(places[:, None] - places) / np.float32(max(classes - 1, 1))
    return far
