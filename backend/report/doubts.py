"""The labels on record of the heaviest head: how far a version doubts each, and what reviewers found."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.report.material import Floats, Item, Material
from backend.scored import Scored
from tasks.ranking.suspects import alternatives


@dataclass(frozen=True)
class Doubts:
    """The labels on record that a version scored: N tasks, and the arguments of `wrong_labels.estimate`."""

    items: Sequence[Item]
    suspicion: Floats
    reviewed: NDArray[np.bool_]
    wrong: NDArray[np.bool_]
    classes: int


def doubts(material: Material, scored: Scored | None) -> Doubts | None:
    """None where the version does not know the heaviest head, or scored no label on record of it."""
    head = material.head
    if head is None or scored is None or scored.scores is None or head.name not in scored.probabilities:
        return None
    items = [item for item in material.items if item.id in scored.row_of]
    recorded = material.targets(head, [item.settled.current for item in items])
    items = [items[row] for row in np.flatnonzero(~np.isnan(recorded).any(axis=1)).tolist()]
    if not items:
        return None
    # The ranking that picks, which knows the other labels too: given what the image alone says, being picked would say
    # more of a label, and the estimate come out too high.
    rows = [scored.row_of[item.id] for item in items]
    suspicion: Floats = scored.scores.doubt(head.name)[rows]
    reviewed = np.array([head.name in item.settled.adjudicated for item in items], dtype=bool)
    wrong = np.array([item.corrected(head) for item in items], dtype=bool)
    return Doubts(items, suspicion, reviewed, wrong, alternatives(head))
