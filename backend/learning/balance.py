"""Weights that let rare classes count in a loss, and what they do to the logits."""

from __future__ import annotations

import numpy as np

from backend.learning.arrays import Float32

CAP = 10.0


def class_weights(targets: Float32, multiple: bool, row_weights: Float32 | None = None) -> Float32:
    """Weights (C,) for the classes of one head, from its targets (n, C); rows of NaN are left out.

    row_weights: (n,), what each row counts; 1 where none are given.

    One label per row: n / (C n_c), "balanced" in scikit-learn's sense. Multiple choice: what a tick counts
    against its absence, n_absent / n_ticked. Never above CAP nor below its inverse, so that three cases of
    a rare class do not steer everything; 1 for a class that has no case.

    Weighting shifts the log odds of a fitted model by log(weight): subtract it to get back probabilities
    (prior correction: King and Zeng, Logistic Regression in Rare Events Data, 2001).
    """
    there = ~np.isnan(targets).any(axis=1)
    counts = np.ones(there.sum(), dtype=np.float32) if row_weights is None else row_weights[there]
    ticked, total = counts @ targets[there], float(counts.sum())
    wanted = total - ticked if multiple else np.full(targets.shape[1], total / targets.shape[1])
    ratio = np.divide(wanted, ticked, out=np.ones(targets.shape[1]), where=(ticked > 0) & (wanted > 0))
    weights: Float32 = np.clip(ratio, 1 / CAP, CAP).astype(np.float32)
    return weights
