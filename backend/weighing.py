"""What each label counts in the fit of a version: how far people stand behind it, and what becomes of suspects.

A suspect is a label on record that nobody has reviewed, and that models which did not see it hold to be wrong, by the
document's rule. What is done with suspects is a setting, and always said: in model.json, `status` and the report.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.learning.arrays import Float32
from backend.learning.config import LearningConfig
from backend.learning.doubted import doubted
from backend.learning.folds import HOLDOUT
from backend.snapshot import Snapshot
from tasks.ranking.suspects import suspects
from tasks.schema import Head

WEIGHS = {"keep": 1.0, "down-weight": 0.5, "drop": 0.0}
"""What a suspect counts beside a label that is none, by the setting."""


@dataclass(frozen=True)
class Weighing:
    """The weights of N labels, head -> float32 (N,): one mapping for all folds, or K, one for each fold's models.

    rule: one of WEIGHS. suspects: per head bool (N,), those that most of the models take for one; None where they keep
    their weight and need not be sought before the fit.
    """

    rule: str
    weights: list[dict[str, Float32]]
    suspects: Mapping[str, NDArray[np.bool_]] | None

    def learnt_from(self, taken: Snapshot, head: Head) -> str:
        """sha256 (hex) over all that the weights of one head are fitted to, these included."""
        if len(self.weights) == 1:
            return taken.learnt_from(head)
        rows = ~np.isnan(taken.targets[head.name]).any(axis=1) & (taken.folds != HOLDOUT)
        digest = hashlib.sha256(taken.learnt_from(head).encode())
        for weights in self.weights:
            digest.update(weights[head.name][rows].tobytes())
        return digest.hexdigest()


def weigh(
    taken: Snapshot,
    heads: tuple[Head, ...],
    points: list[Float32],
    config: LearningConfig,
    rule: str,
    threshold: float,
) -> Weighing:
    """The weights of the labels of these heads. points: embeddings, as `cross_fit` takes them."""
    sure = {head.name: taken.weights[head.name] for head in heads}
    if rule == "keep" or not heads:
        return Weighing(rule, [sure], None)
    found = doubted(
        points,
        {head.name: taken.targets[head.name] for head in heads},
        taken.folds,
        heads,
        config,
        threshold,
        groups=taken.groups.tolist(),
        row_weights=sure,
        clean={head.name: taken.clean(head) for head in heads},
    )
    open_ = {head.name: ~taken.adjudicated[head.name] for head in heads}
    weights = [
        {
            name: np.where(doubt & open_[name], WEIGHS[rule], 1.0).astype(np.float32) * sure[name]
            for name, doubt in of.items()
        }
        for of in found
    ]
    # A fold's own models learn nothing from its labels: K - 1 of them do.
    most = {name: open_[name] & (sum(of[name].astype(int) for of in found) * 2 > config.folds - 1) for name in sure}
    return Weighing(rule, weights, most)


def in_doubt(
    taken: Snapshot, heads: tuple[Head, ...], judged: Mapping[str, Float32], threshold: float
) -> dict[str, NDArray[np.bool_]]:
    """The suspects, per head bool (N,), by out-of-fold probabilities (N, C) of the labels."""
    return {
        head.name: suspects(judged[head.name], taken.targets[head.name], head, threshold)
        & ~taken.adjudicated[head.name]
        & (taken.folds != HOLDOUT)
        for head in heads
    }


def account(taken: Snapshot, rule: str, doubt: Mapping[str, NDArray[np.bool_]]) -> dict[str, dict[str, Any]]:
    """Per head, what is said of its weights.

    suspects: labels on record that are, unreviewed; suspects_weigh: what each counts beside 1; unsure: labels of people
    that count less than 1, because an annotator was not sure or another said something else.
    """
    learnt = taken.folds != HOLDOUT
    return {
        name: {
            "suspects": int(rows.sum()),
            "suspects_weigh": WEIGHS[rule],
            "unsure": int((learnt & taken.adjudicated[name] & (taken.weights[name] < 1)).sum()),
        }
        for name, rows in doubt.items()
    }
