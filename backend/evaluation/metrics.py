"""How good probabilities are against labels: scikit-learn's figures, and the expected calibration error."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from tasks.schema import Head

Floats = NDArray[np.float32]
BINS = 15


def evaluate(head: Head, probabilities: Floats, targets: Floats) -> dict[str, Any]:
    """Metrics of one head over the rows that have a label.

    Args:
        probabilities: (N, C). targets: (N, C) one-hot or multi-hot, NaN rows without a label.
    Returns:
        n, accuracy, macro_f1, auc, ece. A figure that the rows cannot give (no row, one class only) is None. For
        multiple-choice heads accuracy, F1, AUC and ECE are those of its yes-or-no questions, the mean over classes
        for F1 and AUC. AUC is that of `model_positive` where the head names one, else the mean of one against rest.
    """
    known = ~np.isnan(targets).any(axis=1)
    p, y = probabilities[known].astype(np.float64), targets[known].astype(bool)
    if not len(p):
        return {"n": 0, "accuracy": None, "macro_f1": None, "auc": None, "ece": None}
    if head.multiple:
        said = p >= 0.5
        return {
            "n": len(p),
            "accuracy": float(accuracy_score(y.ravel(), said.ravel())),
            "macro_f1": float(f1_score(y, said, average="macro", zero_division=0)),
            "auc": _auc(p, y, range(len(head.classes))),
            "ece": calibration_error(np.maximum(p, 1 - p).ravel(), (said == y).ravel()),
        }
    truth, answer = y.argmax(axis=1), p.argmax(axis=1)
    columns = [head.classes.index(head.positive)] if head.positive is not None else range(len(head.classes))
    return {
        "n": len(p),
        "accuracy": float(accuracy_score(truth, answer)),
        "macro_f1": float(f1_score(truth, answer, average="macro", zero_division=0)),
        "auc": _auc(p, y, columns),
        "ece": calibration_error(p.max(axis=1), truth == answer),
    }


def _auc(p: NDArray[np.float64], y: NDArray[np.bool_], columns: Any) -> float | None:
    scores = [float(roc_auc_score(y[:, c], p[:, c])) for c in columns if 0 < y[:, c].sum() < len(y)]
    return float(np.mean(scores)) if scores else None


def calibration_error(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> float:
    """Expected calibration error over BINS equally wide bins of confidence (N,) (Guo et al. 2017, eq. 3)."""
    bins = np.clip((confidence * BINS).astype(int), 0, BINS - 1)
    count = np.bincount(bins, minlength=BINS)
    gap = np.bincount(bins, weights=confidence - correct, minlength=BINS)
    used = count > 0
    return float(np.abs(gap[used]).sum() / len(confidence))
