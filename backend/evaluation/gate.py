"""Champion and challenger: a new model takes over unless it is worse, on the paired test on the frozen hold-out.

It is tested against the model in force, and against the best that was in force before: many steps down, each too small
to show, would else add up.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from backend.evaluation.compare import Difference, compare
from backend.evaluation.metrics import Floats
from tasks.schema import Head

GROUPS = 10  # below which resampling them says too little: no test, and no interval, is given
NAMES = {"auc": "AUC", "macro_f1": "macro F1"}  # the figures that decide: the first that the rows can give
FOUND = NAMES | {"dice": "Dice"}


@dataclass(frozen=True)
class Verdict:
    """Whether a version takes over, who said so, and on what figures (None where no test was possible).

    by: test, rule (nothing could be tested) or admin. best: the version that later ones are tested against besides the
    one in force. against: the version whose figures stand here, the champion where none refused. low, high: interval
    of after minus before at 95 %. p_worse: share of resamples in which it did worse, ties half; level: from which on
    it is refused. groups, n, adjudicated: of the hold-out labels tested on.
    """

    takes_over: bool
    by: Literal["test", "rule", "admin"]
    reason: str
    best: int
    against: int | None = None
    figure: str | None = None
    before: float | None = None
    after: float | None = None
    low: float | None = None
    high: float | None = None
    p_worse: float | None = None
    level: float | None = None
    groups: int | None = None
    n: int | None = None
    adjudicated: int | None = None


@dataclass(frozen=True)
class Tested:
    """What a verdict rests on: hold-out labels, or marked images, of a control; adjudicated: of these by people."""

    control: str
    what: Literal["labels", "images"]
    n: int
    groups: int
    adjudicated: int


def judge(
    head: Head,
    number: int,
    after: Floats,
    before: Mapping[int, Floats],
    targets: Floats,
    groups: Sequence[str],
    adjudicated: NDArray[np.bool_],
    level: float,
) -> Verdict:
    """The verdict on version `number` by what it and the versions before say of the same N hold-out tasks.

    after: (N, C) probabilities; before: the same of the model in force, which comes first, and of the best so far.
    targets: (N, C), NaN rows without a label. groups, adjudicated: (N,). level: the challenger is refused where it does
    worse than one of them in more than this share of the resamples, in [0.5, 1]; at 1 it never is.

    The figure is AUC, or macro F1 where the labels cannot give an AUC. A one-sided test at 1 - level by the paired
    bootstrap over whole groups (`compare`), whose resamples are always the same: the same input, the same verdict.
    """
    known = np.flatnonzero(~np.isnan(targets).any(axis=1)).tolist()
    tested = Tested(head.name, "labels", len(known), len({groups[row] for row in known}), int(adjudicated[known].sum()))
    found: dict[int, tuple[str, Difference]] = {}
    if tested.groups >= GROUPS:
        for opponent, said in before.items():
            figures = compare(head, said, after, targets, groups)
            name = next((name for name in NAMES if figures[name].p_worse is not None), None)
            if name is not None:
                found[opponent] = name, figures[name]
    return decide(number, next(iter(before)), found, tested, level)


def decide(
    number: int, champion: int, found: Mapping[int, tuple[str, Difference]], tested: Tested, level: float
) -> Verdict:
    """The verdict by the differences of version `number` from those before: a figure's name and what it came to.

    found: by the version; without the champion's no test is possible. level: as in `judge`.
    """
    if champion not in found:
        reason = (
            f"no test against v{champion} is possible: the hold-out has {tested.n} {tested.what} of {tested.control} in"
            f" {tested.groups} groups, and at least {GROUPS} are needed"
        )
        nothing = Verdict(True, "rule", reason, number, champion, level=level)
        return replace(nothing, groups=tested.groups, n=tested.n, adjudicated=tested.adjudicated)
    against = max(found, key=lambda opponent: (_p(found[opponent][1]) > level, opponent == champion))
    name, difference = found[against]
    refused = _p(difference) > level
    best, (_, other) = max(found.items(), key=lambda item: _value(item[1][1].before))
    return Verdict(
        takes_over=not refused,
        by="test",
        reason=_sentence(tested, name, difference, champion, against, level),
        best=number if not refused and _value(other.after) >= _value(other.before) else best,
        against=against,
        figure=name,
        before=difference.before,
        after=difference.after,
        low=difference.low,
        high=difference.high,
        p_worse=difference.p_worse,
        level=level,
        groups=tested.groups,
        n=tested.n,
        adjudicated=tested.adjudicated,
    )


def untested(number: int, reason: str) -> Verdict:
    """The verdict where there is nothing to test against: the version takes over."""
    return Verdict(True, "rule", reason, number)


def _sentence(tested: Tested, name: str, found: Difference, champion: int, against: int, level: float) -> str:
    p = _p(found)
    other = f"v{against}" if against == champion else f"v{against}, the best so far"
    sentence = (
        f"{FOUND[name]} of {tested.control} {_value(found.after):.3f} against {_value(found.before):.3f} of {other}, on"
        f" {tested.n} hold-out {tested.what} in {tested.groups} groups: worse in {100 * p:.0f} % of the resamples"
        f" (refused above {100 * level:.0f} %)"
    )
    return sentence + (f"; v{champion} stays in force" if p > level else "")


def _p(found: Difference) -> float:
    return 0.0 if found.p_worse is None else found.p_worse


def _value(figure: float | None) -> float:
    return float("-inf") if figure is None else figure
