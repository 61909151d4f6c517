"""Before and after on the same rows: the difference of each figure, with a paired bootstrap interval.

Whole groups (patients) are resampled, since images of one patient say nearly the same twice; before and after are
computed on the same resamples, so that what is hard for both cancels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from backend.evaluation.metrics import Doubles, Floats, resampled
from tasks.schema import Head

DRAWS = 2000
LEVEL = 0.95
CELLS = 20_000_000  # resamples times rows that are held at a time

Figures = Callable[[Doubles], dict[str, Doubles]]
"""Weights of N rows (B, N) to figures by name, each (B,); NaN where the rows cannot give it."""


@dataclass(frozen=True)
class Difference:
    """One figure before and after, and the interval of after minus before; None where the rows cannot give it.

    p_worse: the share of resamples in which it got worse, ties half: near 1, it is worse; near 0, better.
    """

    before: float | None
    after: float | None
    low: float | None
    high: float | None
    p_worse: float | None


def compare(
    head: Head, before: Floats, after: Floats, targets: Floats, groups: Sequence[str], seed: int = 0, draws: int = DRAWS
) -> dict[str, Difference]:
    """Each figure of `metrics.resampled`, by name.

    before, after: (N, C) probabilities of the same N rows. targets: (N, C), NaN rows without a label are left out.
    groups: (N,).
    """
    known = ~np.isnan(targets).any(axis=1)
    y, where = targets[known], np.asarray(groups)[known].tolist()
    return paired(
        partial(resampled, head, before[known], y), partial(resampled, head, after[known], y), where, seed, draws
    )


def paired(
    before: Figures, after: Figures, groups: Sequence[str], seed: int = 0, draws: int = DRAWS
) -> dict[str, Difference]:
    """Each figure of the same N rows before and after, by name.

    groups: (N,). The interval is the percentile interval (Efron 1979) at LEVEL over resamples of whole groups; those
    that cannot give a figure (one class only) are left out of it. Lower is better for the calibration error alone.
    """
    names, member = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True)
    one = np.ones((1, len(groups)))
    first, last = before(one), after(one)
    rng = np.random.default_rng(seed)
    parts: list[dict[str, Doubles]] = []
    chunk = max(1, CELLS // max(len(groups), 1))
    for start in range(0, draws if len(groups) else 0, chunk):
        weights = _resample(rng, len(names), min(chunk, draws - start))[:, member]
        old, new = before(weights), after(weights)
        parts.append({name: new[name] - old[name] for name in new})
    return {
        name: _difference(
            first[name][0],
            last[name][0],
            np.concatenate([part[name] for part in parts] or [np.empty(0)]),
            name == "ece",
        )
        for name in first
    }


def _resample(rng: np.random.Generator, groups: int, draws: int) -> NDArray[np.float64]:
    """How often each group comes in each resample (draws, groups)."""
    return rng.multinomial(groups, np.full(groups, 1 / groups), size=draws).astype(np.float64)


def _difference(before: float, after: float, differences: Doubles, lower_is_better: bool) -> Difference:
    there = differences[~np.isnan(differences)]
    if np.isnan(before) or np.isnan(after) or not len(there):
        return Difference(_number(before), _number(after), None, None, None)
    low, high = np.quantile(there, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    worse = there > 0 if lower_is_better else there < 0
    return Difference(
        float(before), float(after), float(low), float(high), float(worse.mean() + (there == 0).mean() / 2)
    )


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
