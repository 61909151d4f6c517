"""What the random part of the queue tells: what chance would have found, what ranking saved, who follows the model.

Two-sample intervals are Newcombe's (1998, method 10) from Wilson's; all at LEVEL.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

from scipy.stats import binomtest

LEVEL = 0.95


class Share(NamedTuple):
    """A share with its interval; all three None where nothing was counted."""

    share: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Arm:
    """Reviewed tasks of one part of the queue, and how many of them carried a wrong label."""

    reviewed: int
    wrong: int


@dataclass(frozen=True)
class Saving:
    """Reviews saved against chance: how many random ones would have found the same errors, less those that were made.

    `shown`: whether the interval lies above 0. low and high are infinite where the control arm found no error at all.
    """

    saved: float | None
    low: float | None
    high: float | None

    @property
    def shown(self) -> bool:
        """Whether ranking saved anything beyond doubt."""
        return self.low is not None and self.low > 0


def rate(arm: Arm) -> Share:
    """The share of wrong labels in an arm, with Wilson's interval."""
    return _wilson(arm.wrong, arm.reviewed)


def at_random(control: Arm, reviewed: int) -> tuple[int, int] | None:
    """Between how many wrong labels and how many so many reviews at random would have found; None without control."""
    share = rate(control)
    if share.low is None or share.high is None:
        return None
    return math.floor(share.low * reviewed), math.ceil(share.high * reviewed)


def labels_saved(ranked: Arm, control: Arm) -> Saving:
    """Random reviews that would have found what `ranked` found, less the reviews it took.

    The interval is that of the control arm's rate: what was found by ranking is a fact, what chance finds is estimated.
    """
    share = rate(control)
    if share.share is None or share.low is None or share.high is None or not ranked.reviewed:
        return Saving(None, None, None)

    def saved(chance: float) -> float:
        if ranked.wrong == 0:
            return float(-ranked.reviewed)
        return math.inf if chance == 0 else ranked.wrong / chance - ranked.reviewed

    return Saving(saved(share.share), saved(share.high), saved(share.low))


def automation_bias(shown_agreed: int, shown: int, blind_agreed: int, blind: int) -> Share:
    """How much oftener annotators give the model's answer when they see it than when they do not.

    Both halves are drawn at random from the same tasks, so that the difference is what seeing it does. Newcombe's
    interval of the difference of two shares.
    """
    one, two = _wilson(shown_agreed, shown), _wilson(blind_agreed, blind)
    if one.share is None or one.low is None or one.high is None:
        return Share(None, None, None)
    if two.share is None or two.low is None or two.high is None:
        return Share(None, None, None)
    difference = one.share - two.share
    return Share(
        difference,
        difference - math.hypot(one.share - one.low, two.high - two.share),
        difference + math.hypot(one.high - one.share, two.share - two.low),
    )


def _wilson(hits: int, of: int) -> Share:
    if not of:
        return Share(None, None, None)
    interval = binomtest(hits, of).proportion_ci(LEVEL, method="wilson")
    return Share(hits / of, float(interval.low), float(interval.high))
