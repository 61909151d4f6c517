"""Champion and challenger of masks: paired Dice on the hold-out's marked images, over resamples of whole groups."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from backend.evaluation import gate
from backend.evaluation.compare import DRAWS, Difference, paired
from backend.evaluation.gate import GROUPS, Tested, Verdict
from backend.evaluation.metrics import Doubles


def judge(
    control: str,
    number: int,
    after: Doubles,
    before: Mapping[int, Doubles],
    groups: Sequence[str],
    adjudicated: NDArray[np.bool_],
    level: float,
) -> Verdict:
    """The verdict on version `number` by what it and the versions before draw in the same N marked hold-out images.

    after: Dice (N, C) with what is marked, NaN for a class that is in neither; before: the same of the model in force,
    which comes first, and of the best so far. groups, adjudicated: (N,). level: as in `gate.judge`.
    """
    tested = Tested(control, "images", len(after), len(set(groups)), int(adjudicated.sum()))
    found: dict[int, tuple[str, Difference]] = {}
    if tested.groups >= GROUPS:
        for opponent, said in before.items():
            difference = compare(said, after, groups)
            if difference.p_worse is not None:
                found[opponent] = "dice", difference
    return gate.decide(number, next(iter(before)), found, tested, level)


def compare(before: Doubles, after: Doubles, groups: Sequence[str], draws: int = DRAWS) -> Difference:
    """Mean Dice before and after, of the same images: the mean over classes of their mean over images.

    before, after: (N, C), NaN for a class that is neither drawn nor there. Where only one of the two found nothing in
    an image in which nothing is, that was right: it counts as 1 there, as what the other drew counts as 0.
    """
    either = ~np.isnan(before) | ~np.isnan(after)
    old, new = (np.where(either, np.nan_to_num(scores, nan=1.0), np.nan) for scores in (before, after))
    return paired(lambda w: {"dice": mean(old, w)}, lambda w: {"dice": mean(new, w)}, groups, draws=draws)["dice"]


def mean(scores: Doubles, weights: Doubles) -> Doubles:
    """Mean Dice (B,) of scores (N, C) under B sets of row weights (B, N), by class and then over those that are there.

    NaN where none is.
    """
    known = ~np.isnan(scores)
    total, counts = weights @ np.nan_to_num(scores), weights @ known
    there = counts > 0
    classes = np.divide(total, counts, out=np.zeros_like(total), where=there).sum(axis=1)
    found: Doubles = np.divide(classes, there.sum(axis=1), out=np.full(len(weights), np.nan), where=there.any(axis=1))
    return found
