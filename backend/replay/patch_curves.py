"""What replays of corrected patches over several seeds come to: curves with intervals, and a paired test."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from backend.replay.curves import interval
from backend.replay.patch_run import REFIT, Moment

FIGURES = ("dice", "source_dice", "clicks", "foreground_pixels", "seconds")
RIVAL, AT = "foreground-random", 10
"""What every strategy is tested against, and after how many patches."""

BySeed = Mapping[int, Sequence[Moment]]


def summary(strategy: str, moments: BySeed, rival: BySeed | None) -> dict[str, Any]:
    """One strategy's replays as one object: per count of patches [mean, low, high] over seeds of each of FIGURES.

    start: whether every model went on from the last (warm) or began anew (refit). over_foreground_random: [mean, low,
    high] of how much higher the Dice is than that of RIVAL, by the same seed, after AT patches; p: of the paired t
    test, two-sided. Both are None without at least two seeds of both. Intervals are as `curves.interval` has them.
    """
    by_count: dict[int, list[Moment]] = {}
    for found in moments.values():
        for moment in found:
            by_count.setdefault(moment.patches, []).append(moment)
    counts = sorted(by_count)
    ahead = [] if rival is None else differences(moments, rival, AT)
    return {
        "strategy": strategy,
        "start": "refit" if strategy.endswith(REFIT) else "warm",
        "seeds": len(moments),
        "patches": counts,
        **{
            figure: [interval([float(getattr(moment, figure)) for moment in by_count[count]]) for count in counts]
            for figure in FIGURES
        },
        "over_foreground_random": interval(ahead) if len(ahead) > 1 else None,
        "p": paired_p(ahead),
    }


def differences(one: BySeed, other: BySeed, count: int, figure: str = "dice") -> list[float]:
    """How much higher the figure of one is than of the other after so many patches, for each seed that both have."""
    first, second = (
        {seed: getattr(moment, figure) for seed, found in given.items() for moment in found if moment.patches == count}
        for given in (one, other)
    )
    return [float(first[seed] - second[seed]) for seed in sorted(first.keys() & second.keys())]


def paired_p(differences: Sequence[float]) -> float | None:
    """The p value, two-sided, of Student's paired test; None where there is nothing to test."""
    if len(differences) < 2 or not np.any(differences):
        return None
    if np.ptp(differences) == 0:
        return 0.0
    return float(stats.ttest_1samp(differences, 0.0).pvalue)
