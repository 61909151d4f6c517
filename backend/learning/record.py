"""A second opinion on each label: what the image and the other labels on record say of it together.

TI-RADS, the features and benign or malignant of one nodule belong together; a label that the others on record
contradict deserves a look, even where the image alone leaves it open. Stacking (Wolpert 1992): a logistic regression
over the out-of-fold log-probabilities of all heads and the other heads' labels, cross-fitted on the same folds.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from backend.learning.arrays import Float32, Targets
from backend.learning.folds import HOLDOUT
from tasks.schema import Head

STRENGTH = 0.1  # inverse of the L2 penalty on standardised columns
FLOOR = 1e-3  # probabilities are kept this far from 0
FEWEST = 100  # rows with a label below which the image alone speaks


def opinions(
    heads: Sequence[Head], probabilities: Mapping[str, Float32], targets: Targets, folds: NDArray[np.int8]
) -> dict[str, Float32]:
    """Probabilities per head (N, C) of single choices and ratings whose row carries a label.

    probabilities: per learnt head (N, C), out of fold where labelled. targets: per head (N, C) settled labels, NaN rows
    without. folds: (N,); the regression that speaks of fold k was fitted without it, and never on the hold-out. Rows
    without a label, hold-out rows and multiple choices keep the image's probabilities, and so do all where no other
    head has labels or fewer than FEWEST rows are labelled.
    """
    learnt = [head for head in heads if head.name in probabilities]
    seen = [np.log(np.clip(probabilities[head.name], FLOOR, 1.0)) for head in learnt]
    said = {head.name: _columns(targets[head.name]) for head in learnt if head.name in targets}
    found = dict(probabilities)
    for head in learnt:
        others = [said[name] for name in said if name != head.name and said[name][:, -1].any()]
        known = ~np.isnan(targets[head.name]).any(axis=1) & (folds != HOLDOUT) if head.name in targets else None
        if head.multiple or known is None or not others or known.sum() < FEWEST:
            continue
        found[head.name] = _cross_fitted(
            np.concatenate([*seen, *others], axis=1), targets[head.name], known, folds, probabilities[head.name]
        )
    return found


def _columns(target: Float32) -> Float32:
    """The labels (N, C) with 0 where there is none, and a column that says whether there is one."""
    there = ~np.isnan(target).any(axis=1, keepdims=True)
    columns: Float32 = np.concatenate([np.where(there, np.nan_to_num(target), 0), there], axis=1).astype(np.float32)
    return columns


def _cross_fitted(
    columns: Float32, target: Float32, known: NDArray[np.bool_], folds: NDArray[np.int8], image: Float32
) -> Float32:
    found, label = image.copy(), np.nan_to_num(target).argmax(axis=1)
    for fold in np.unique(folds[known]):
        fitted, asked = known & (folds != fold), known & (folds == fold)
        if len(np.unique(label[fitted])) < 2:
            continue
        mean, spread = columns[fitted].mean(axis=0), columns[fitted].std(axis=0) + 1e-6
        model = LogisticRegression(C=STRENGTH, max_iter=300)
        model.fit((columns[fitted] - mean) / spread, label[fitted])
        said = np.zeros((int(asked.sum()), target.shape[1]), dtype=np.float32)
        said[:, model.classes_] = model.predict_proba((columns[asked] - mean) / spread)
        found[asked] = said
    return found
