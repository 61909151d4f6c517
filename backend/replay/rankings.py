"""How well wrong labels are told from right ones: the loop's own ranking of suspects beside cleanlab's.

All are computed of the same out-of-fold probabilities, before anything is reviewed. cleanlab (Northcutt et al., JAIR
2021) judges by the probabilities of the image alone; so does `image`, by the distance that the queue orders by. `loop`
is the loop's own probability that a label is wrong, which also knows the other labels on record; where a head is not
ordinal, the queue's disagreement is the same.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from cleanlab.rank import get_label_quality_scores
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from tasks.ranking.disagreement import disagreement
from tasks.schema import Head

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]
METHODS = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")
FIRST = 0.10  # share of the tasks whose errors `first_tenth` counts


@dataclass(frozen=True)
class Ranked:
    """What a ranking of N labels is worth; None where there is no wrong label, or no right one.

    auroc: chance that a wrong label stands before a right one, ties half. precision: share of wrong ones among the
    first as many as there are wrong ones. first_tenth: share of all wrong ones that is among the first tenth.
    """

    auroc: float | None
    precision: float | None
    first_tenth: float | None


def ranked(doubt: Floats, wrong: Flags) -> Ranked:
    """The worth of doubts (N,), the highest first and equal ones by row."""
    count = int(wrong.sum())
    if not 0 < count < len(wrong):
        return Ranked(None, None, None)
    order = np.argsort(-doubt, kind="stable")
    first = round(FIRST * len(wrong))
    return Ranked(
        float(roc_auc_score(wrong, doubt)),
        float(wrong[order[:count]].mean()),
        float(wrong[order[:first]].sum() / count),
    )


def compared(head: Head, loop: Floats, probabilities: Floats, recorded: Floats, wrong: Flags) -> dict[str, Ranked]:
    """Rankings by name of the N tasks: loop, image, and for single choices and ratings cleanlab's.

    loop: (N,) the loop's own doubt. probabilities, recorded: (N, C), without NaN. wrong: (N,).
    """
    found = {"loop": ranked(loop, wrong), "image": ranked(disagreement(probabilities, recorded, head), wrong)}
    if not head.multiple:
        labels = recorded.argmax(axis=1)
        for method in METHODS:
            quality: Any = get_label_quality_scores(labels, probabilities, method=method)
            found[f"cleanlab {method}"] = ranked(-np.asarray(quality, dtype=np.float32), wrong)
    return found
