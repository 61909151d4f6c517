"""How strongly the model contradicts the label a task carries: the score that finds wrong labels."""

import numpy as np
from numpy.typing import NDArray

from tasks.schema import Head

Floats = NDArray[np.float32]

THRESHOLD = 0.2


def disagreement(probabilities: Floats, targets: Floats, head: Head, threshold: float = THRESHOLD) -> Floats:
    """Score tasks by disagreement with their current label y, as float32 (N,) in [0, 1].

    1 where p[y] < threshold and the predicted class is another one; elsewhere `strength (1 - p[y])`, strength being
    |predicted - y| / (C - 1) for an ordinal head and 0 or 1 for the others. On a multiple-choice head each class is a
    yes or no of its own (ticked from p = 0.5 on), and the score is the mean over classes.

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
        return _multiple(p, y, threshold)
    return _single(p, y, threshold, head.ordinal)


def _single(p: Floats, y: Floats, threshold: float, ordinal: bool) -> Floats:
    labelled = y.max(axis=1, initial=0) > 0  # false for NaN as well
    rows = np.arange(len(p))
    label = np.where(labelled[:, None], y, 0).argmax(axis=1)
    predicted = p.argmax(axis=1)
    if ordinal:
        strength = np.abs(predicted - label).astype(np.float32) / np.float32(max(p.shape[1] - 1, 1))
    else:
        strength = (predicted != label).astype(np.float32)
    return np.where(labelled, _graded(p[rows, label], strength, threshold), np.float32(0))


def _multiple(p: Floats, y: Floats, threshold: float) -> Floats:
    labelled = ~np.isnan(y).any(axis=1)
    ticked = y > 0.5
    strength = ((p >= 0.5) != ticked).astype(np.float32)
    per_class = _graded(np.where(ticked, p, 1 - p), strength, threshold)
    return np.where(labelled, per_class.mean(axis=1), np.float32(0))


def _graded(p_label: Floats, strength: Floats, threshold: float) -> Floats:
    contradicted = (p_label < threshold) & (strength > 0)
    return np.where(contradicted, np.float32(1), np.clip(strength * (1 - p_label), 0, 1))
