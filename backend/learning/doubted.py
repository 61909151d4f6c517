"""Which labels the models that saw neither them nor their group hold to be wrong, so that they may weigh less.

What a model learns from must not depend on the labels that it is asked about later. A suspect found by one cross-fit
was found by a model that saw all other folds; if it weighs less for the models of those folds, their labels have had a
say in their own scores: with labels that nothing tells the out-of-fold AUC rose from 0.50 to 0.75. So suspects are
sought anew for each fold, among the others alone: each of those is judged by a model that saw neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from backend.learning import calibrate, crossfit, heads
from backend.learning.arrays import Float32, Members, Targets, Weights
from backend.learning.config import LearningConfig
from backend.learning.folds import HOLDOUT
from backend.learning.record import opinions
from tasks.ranking.suspects import suspects
from tasks.schema import Head

Doubted = dict[str, NDArray[np.bool_]]
"""Per head (N,)."""


def doubted(
    embeddings: Sequence[Float32],
    targets: Targets,
    folds: NDArray[np.int8],
    schema_heads: Sequence[Head],
    config: LearningConfig,
    threshold: float,
    groups: Sequence[str] | None = None,
    row_weights: Weights | None = None,
    clean: Mapping[str, NDArray[np.bool_]] | None = None,
) -> list[Doubted]:
    """K times, per head (N,): the labels among the other folds that are suspects by the document's rule.

    Number k knows nothing of fold k, so that the heads fitted without that fold may learn less from these labels.
    The arguments are `cross_fit`'s, but for row_weights: one for all. Each judge is fitted once, without repeats.
    Raises ValueError for fewer than 3 folds, and what `cross_fit` raises.
    """
    if config.folds < 3:
        raise ValueError(f"{config.folds} folds: suspects can only weigh less where there are at least 3")
    trainable = crossfit.labelled_rows(targets) & (folds != HOLDOUT)
    judges: dict[tuple[int, int], heads.LinearHeads | None] = {}

    def judge(held: int, fold: int) -> heads.LinearHeads | None:
        # With one backbone for all, who saw neither of two folds is the same for both.
        pair = (held, fold) if len(embeddings) > 1 else (min(held, fold), max(held, fold))
        if pair not in judges:
            rows = np.flatnonzero(trainable & (folds != held) & (folds != fold))
            seed = config.seed * config.folds + fold
            judges[pair] = (
                heads.fit(crossfit.of_fold(embeddings, fold), targets, rows, schema_heads, 1, seed, groups, row_weights)
                if len(rows)
                else None
            )
        return judges[pair]

    found = []
    for held in range(config.folds):
        there = trainable & (folds != held)
        known = {name: np.where(there[:, None], target, np.nan) for name, target in targets.items()}
        unseen: Members = {name: np.full((1, *target.shape), np.nan, np.float32) for name, target in targets.items()}
        for fold in set(range(config.folds)) - {held}:
            rows, members = np.flatnonzero(there & (folds == fold)), judge(held, fold)
            if members is None:  # nothing to learn from beside these two folds: nobody doubts
                for target in known.values():
                    target[rows] = np.nan
                continue
            for name, logits in heads.predict_logits(members, crossfit.of_fold(embeddings, fold)[rows]).items():
                unseen[name][:, rows] = logits
        degrees = crossfit.temperatures(unseen, known, there, schema_heads, clean)
        said = {
            head.name: calibrate.apply(unseen[head.name], degrees[head.name], head.multiple)[0] for head in schema_heads
        }
        judged = opinions(schema_heads, said, known, folds)
        found.append(
            {head.name: suspects(judged[head.name], known[head.name], head, threshold) for head in schema_heads}
        )
    return found
