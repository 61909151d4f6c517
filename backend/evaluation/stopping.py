"""When enough is reviewed: one question a criterion, each answered with its figures, and what they come to.

Budgets and the uncertainty threshold are somebody's decision, so that any of them is enough. The plateau of the model
and the drying up of finds are judgements from noisy figures: both must hold, of those that apply, and what is too
little to tell does not hold.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from backend.evaluation.compare import Difference
from backend.evaluation.control import Arm, Share, rate

Floats = NDArray[np.floating]
Name = Literal["annotations", "hours", "uncertainty", "plateau", "finds"]

BACK = 3  # versions over which a model must have stopped gaining
GAIN = 0.02  # of AUC or macro F1: a smaller one is worth no further version
RECENT = 100  # ranked reviews, the newest, whose finds are judged
RARE = 0.05  # share of wrong labels below which ranked reviews find nearly none: the usual share at random
CONTROL = 50  # reviews at random from which on ranking is compared with chance
SECONDS = 3600.0  # of an hour


@dataclass(frozen=True)
class Criterion:
    """One reason to stop. met: whether it holds; None where it does not apply. said: a sentence with its figures."""

    name: Name
    met: bool | None
    said: str


def annotations(made: int, budget: int) -> Criterion:
    """Whether people have made as many annotations as they were to make; a budget of 0 is none."""
    if not budget:
        return Criterion("annotations", None, f"No budget of annotations is set; {made} are made.")
    return Criterion("annotations", made >= budget, f"{made} of {budget} annotations of the budget are made.")


def hours(lead_times: Sequence[float | None], budget: float) -> Criterion:
    """Whether people have worked as long as they were to; a budget of 0 is none.

    lead_times: seconds per annotation or skip, as Label Studio measures them; those it did not count as the median.
    """
    known = [seconds for seconds in lead_times if seconds is not None]
    if lead_times and not known:
        said = f"None of the {len(lead_times)} answers has a lead time, so that no hours can be counted."
        return Criterion("hours", False if budget else None, said)
    missing = len(lead_times) - len(known)
    spent = (sum(known) + missing * float(np.median(known or [0.0]))) / SECONDS
    counted = f" ({missing} of {len(lead_times)} answers without a lead time, counted as the median)" if missing else ""
    if not budget:
        return Criterion("hours", None, f"No budget of hours is set; {spent:.1f} are spent{counted}.")
    return Criterion("hours", spent >= budget, f"{spent:.1f} of {budget:g} hours of the budget are spent{counted}.")


def uncertainty(values: Floats, below: float) -> Criterion:
    """Whether the model is sure of what nobody has reviewed: mean uncertainty below a threshold, 0 for none.

    values: (N,) in [0, 1], of the unreviewed tasks. The overall uncertainty of Zhu, Wang and Hovy (2008, COLING), in
    small-text OverallUncertainty.
    """
    if not len(values):
        return Criterion("uncertainty", None, "No task that nobody has reviewed was scored by a model.")
    mean = float(np.mean(values))
    told = f"The mean uncertainty of the {len(values)} tasks not reviewed is {mean:.3f}"
    if not below:
        return Criterion("uncertainty", None, f"{told}; no threshold is set.")
    return Criterion("uncertainty", mean < below, f"{told}; the threshold is {below:g}.")


def plateau(figure: str, before: int, after: int, gain: Difference | None, versions: int) -> Criterion:
    """Whether the model gains no more: over BACK trainings a gain of GAIN is ruled out by its paired interval.

    figure: what was compared on the hold-out, against labels that hold now. before, after: numbers of the models that
    were in force; the same where all newer ones were refused, which is no gain either. gain: the paired difference;
    None below BACK + 1 versions, or where it is one model. versions: how many can be compared.

    That no gain is shown would not do: a small hold-out never shows any. So the whole interval has to lie below GAIN,
    as in a test of non-superiority. Several versions and not the last step alone, as where predictions settle
    (Bloodgood and Vijay-Shanker 2009, CoNLL; small-text KappaAverage); DeltaFScore there (Altschuler and Bloodgood
    2019) predicts the change of F1 without its noise.
    """
    if versions > BACK and before == after:
        return Criterion(
            "plateau", True, f"v{after} stays in force: of {BACK} trainings since, none brought a better one."
        )
    if gain is None:
        said = f"Too few versions to tell: {versions} can be compared on the hold-out, it takes {BACK + 1}."
        return Criterion("plateau", False, said)
    if gain.before is None or gain.after is None or gain.low is None or gain.high is None:
        said = f"The hold-out cannot tell: it gives no interval of the {figure} from v{before} to v{after}."
        return Criterion("plateau", False, said)
    moved = f"From v{before} to v{after} {figure} on the hold-out went from {gain.before:.3f} to {gain.after:.3f}"
    interval = f"change {gain.low:+.3f} to {gain.high:+.3f}"
    if gain.high < GAIN:
        return Criterion("plateau", True, f"{moved} ({interval}): a gain of {GAIN:g} is ruled out.")
    return Criterion("plateau", False, f"{moved} ({interval}): a gain of {GAIN:g} is not ruled out.")


def finds(ranked: Sequence[bool], control: Arm, recorded: int) -> Criterion:
    """Whether ranked reviews find wrong labels no more: nearly none, or no more than chance.

    recorded: tasks with a label on record; without any there is nothing to find, and this does not apply.

    ranked: reviews of ranked tasks with a label on record, oldest first: whether it was wrong. control: those drawn at
    random. The newest RECENT count. Nearly none: the whole Wilson interval lies below RARE. No more than chance: the
    share found is not above the control arm's, of CONTROL reviews at least of which some found something.
    """
    if not recorded:
        return Criterion("finds", None, "No task carries a label on record, so that none can be found wrong.")
    recent = list(ranked[-RECENT:])
    if len(recent) < RECENT:
        said = f"Too few ranked reviews of labels on record to tell: {len(recent)} of {RECENT}."
        return Criterion("finds", False, said)
    found = rate(Arm(len(recent), sum(recent)))
    assert found.share is not None and found.low is not None and found.high is not None  # RECENT is not 0
    told = f"The last {len(recent)} ranked reviews found {sum(recent)} wrong labels ({_interval(found)})"
    chance = rate(control)
    if chance.share is None:
        at_random = "there is no control arm to compare with"
    else:
        at_random = f"at random it was {control.wrong} of {control.reviewed} ({_interval(chance)})"
    if found.high < RARE:
        return Criterion("finds", True, f"{told}, so fewer than {100 * RARE:.0f} %; {at_random}.")
    if control.reviewed >= CONTROL and control.wrong and found.share <= (chance.share or 0.0):
        return Criterion("finds", True, f"{told}, no more than chance: {at_random}.")
    return Criterion("finds", False, f"{told}; {at_random}.")


def reasons(criteria: Sequence[Criterion]) -> list[Criterion]:
    """The criteria for which it is time to stop; none where it is not.

    A budget that is spent or a threshold that is passed is enough. Plateau and finds count together: where one of them
    applies and does not hold, the other is not enough.
    """
    decided = [row for row in criteria if row.name in ("annotations", "hours", "uncertainty") and row.met]
    judged = [row for row in criteria if row.name in ("plateau", "finds") and row.met is not None]
    return decided + (judged if all(row.met for row in judged) else [])


def _interval(share: Share) -> str:
    return f"{100 * (share.low or 0):.1f} to {100 * (share.high or 0):.1f} %"
