"""How good probabilities are against labels, under any weights of the rows: one row each, or a thousand resamples.

Every figure is computed for B sets of row weights at once, so that a bootstrap costs a few matrix products.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.schema import Head

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
BINS = 15
FIGURES = ("accuracy", "macro_f1", "auc", "sensitivity", "specificity", "ece")


def evaluate(head: Head, probabilities: Floats, targets: Floats) -> dict[str, Any]:
    """Metrics of one head over the rows that have a label.

    Args:
        probabilities: (N, C). targets: (N, C) one-hot or multi-hot, NaN rows without a label.
    Returns:
        n and FIGURES. A figure that the rows cannot give (no row, one class only) is None.
    """
    known = ~np.isnan(targets).any(axis=1)
    ones = np.ones((1, int(known.sum())))
    found = resampled(head, probabilities[known], targets[known], ones)
    return {"n": int(known.sum())} | {
        name: None if np.isnan(value[0]) else float(value[0]) for name, value in found.items()
    }


def resampled(head: Head, probabilities: Floats, targets: Floats, weights: Doubles) -> dict[str, Doubles]:
    """FIGURES, each (B,), of one head under B sets of row weights; NaN where the rows of a set cannot give it.

    probabilities: (N, C). targets: (N, C) one-hot or multi-hot, without NaN. weights: (B, N): how often each counts.

    AUC, sensitivity and specificity are those of `model_positive` where the head names one; without it AUC is the mean
    of one against rest and the two others are NaN. For multiple-choice heads all are those of its yes-or-no questions:
    the mean over classes for F1, AUC, sensitivity and specificity. Macro F1 is over the classes that were given or
    answered, as scikit-learn's. ECE is that of the answer's probability (Guo et al. 2017, eq. 3), in BINS equally wide
    bins.
    """
    p, y, w = probabilities.astype(np.float64), targets.astype(np.float64), np.asarray(weights, dtype=np.float64)
    total = w.sum(axis=1)
    columns = list(range(p.shape[1]))
    if head.multiple:
        said = (p >= 0.5).astype(np.float64)
        right = said == y
        confidence, asked = np.maximum(p, 1 - p), columns
        accuracy = _ratio(w @ right.mean(axis=1), total)
    else:
        answer, truth = p.argmax(axis=1), y.argmax(axis=1)
        said = np.eye(p.shape[1])[answer]
        right, confidence = (answer == truth)[:, None], p.max(axis=1, keepdims=True) if len(p) else p[:, :1]
        accuracy = _ratio(w @ right[:, 0].astype(np.float64), total)
        asked = []
        if head.positive is not None:
            columns = asked = [head.classes.index(head.positive)]
    hits, given, answered = w @ (said * y), w @ y, w @ said
    f1 = _ratio(2 * hits, given + answered)
    if head.multiple:
        f1 = np.nan_to_num(f1)  # a question nobody answers yes counts as 0, as in scikit-learn
    false_alarms = answered - hits
    return {
        "accuracy": accuracy,
        "macro_f1": np.where(total > 0, _mean(f1), np.nan),
        "auc": _mean(np.stack([_auc(p[:, c], y[:, c], w) for c in columns], axis=1)),
        "sensitivity": _mean(_ratio(hits, given)[:, asked]),
        "specificity": _mean(1 - _ratio(false_alarms, total[:, None] - given)[:, asked]),
        "ece": _calibration_error(confidence, right, w),
    }


def calibration_error(confidence: Doubles, correct: NDArray[np.bool_]) -> float:
    """Expected calibration error over BINS equally wide bins of confidence (N,) (Guo et al. 2017, eq. 3)."""
    return float(_calibration_error(confidence[:, None], correct[:, None], np.ones((1, len(confidence))))[0])


def _calibration_error(confidence: Doubles, correct: NDArray[np.bool_], w: Doubles) -> Doubles:
    """Of (N, Q) answers: each row's Q answers carry its weight."""
    bins = np.clip((confidence * BINS).astype(int), 0, BINS - 1)
    gap = np.stack([((confidence - correct) * (bins == b)).sum(axis=1) for b in range(BINS)], axis=1)
    return _ratio(np.abs(w @ gap).sum(axis=1), w.sum(axis=1) * max(confidence.shape[1], 1))


def _auc(p: Doubles, y: Doubles, w: Doubles) -> Doubles:
    """Area under the ROC curve (B,): the weight of pairs in order, ties half (Mann-Whitney)."""
    if not len(p):
        return np.full(len(w), np.nan)
    order = np.argsort(p, kind="stable")
    _, place = np.unique(p[order], return_inverse=True)
    starts = np.flatnonzero(np.diff(place, prepend=-1))
    positive = np.add.reduceat(w[:, order] * y[order], starts, axis=1)
    negative = np.add.reduceat(w[:, order] * (1 - y[order]), starts, axis=1)
    below = np.cumsum(negative, axis=1) - negative / 2
    return _ratio((positive * below).sum(axis=1), positive.sum(axis=1) * negative.sum(axis=1))


def _ratio(over: Doubles, under: Doubles) -> Doubles:
    found: Doubles = np.full(np.broadcast(over, under).shape, np.nan)
    np.divide(over, under, out=found, where=under > 0)
    return found


def _mean(values: Doubles) -> Doubles:
    """The mean over columns of those that are numbers; NaN where none is."""
    there = ~np.isnan(values)
    return _ratio(np.where(there, values, 0).sum(axis=1), there.sum(axis=1).astype(np.float64))
