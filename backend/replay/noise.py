"""Wrong labels for a replay: some of a head's labels are exchanged for others."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from tasks.schema import Head, Labels

Kind = Literal["uniform", "confusable"]


def with_noise(labels: Sequence[Labels], head: Head, share: float, kind: Kind, seed: int) -> list[Labels]:
    """Exchange the labels of `share` of the labelled rows of a single-choice or rating head; the others stay.

    uniform: every other class that occurs is as likely. confusable: a neighbour in the order of the classes, as
    annotators mistake one grade for the next. Raises ValueError for a share outside [0, 1), for a multiple-choice head,
    and where fewer than two classes occur.
    """
    if not 0 <= share < 1:
        raise ValueError(f"the share of wrong labels is {share}; it is at least 0 and less than 1")
    if head.multiple and share:
        raise ValueError(f"{head.name!r} is a multiple choice: wrong labels are made for single choices and ratings")
    labelled = [row for row, said in enumerate(labels) if said.get(head.name)]
    present = [name for name in head.classes if any(labels[row][head.name] == (name,) for row in labelled)]
    if share and len(present) < 2:
        raise ValueError(f"{head.name!r} has {len(present)} class(es) among the labels: none to exchange them for")
    rng = np.random.default_rng(seed)
    made = [dict(row) for row in labels]
    for place in rng.permutation(len(labelled))[: round(share * len(labelled))].tolist():
        row = labelled[place]
        at = present.index(labels[row][head.name][0])
        others = [step for step in range(len(present)) if step != at and (kind == "uniform" or abs(step - at) == 1)]
        made[row][head.name] = (present[int(rng.choice(others))],)
    return made
