"""Which weights a replay recommends: those that found most wrong labels, where seeds tell them from the default."""

from collections.abc import Mapping, Sequence
from typing import Any

from backend.replay.curves import Point, interval
from backend.replay.strategies import STRATEGIES

DEFAULT = "hybrid"


def advantage(one: Sequence[Point], other: Sequence[Point]) -> list[float] | None:
    """[mean, low, high] over seeds: how much larger a share of the errors `one` has found, averaged over the budget.

    The replays of a seed share their wrong labels and first model, so that they are paired. None with nothing reviewed
    or without wrong labels.
    """
    return interval(
        [
            None if a is None or b is None else a - b
            for a, b in zip(_areas(one).values(), _areas(other).values(), strict=True)
        ]
    )


def recommended(points: Mapping[str, Sequence[Point]]) -> str | None:
    """The strategy to use; None where the default was not replayed or nothing was found to compare.

    The largest mean advantage over the default, where its interval lies above 0 and at least two seeds were replayed;
    else the default. Only weights are recommended: not chance, nor what is no order of its own.
    """
    if DEFAULT not in points:
        return None
    best, most = DEFAULT, 0.0
    for name, found in points.items():
        said = advantage(found, points[DEFAULT])
        if said is None:
            return None
        seeds = len({point.seed for point in found})
        if applied(name) and seeds > 1 and said[1] > 0 and said[0] > most:
            best, most = name, said[0]
    return best


def applied(name: str) -> dict[str, Any]:
    """The settings by which an admin uses a strategy, also as extra parameters of the ML backend; {} for none."""
    own = STRATEGIES[name]
    return own if own.keys() <= {"preset", "uncertainty"} else {}


def _areas(points: Sequence[Point]) -> dict[int, float | None]:
    """By seed the share of errors found, averaged over all counts of reviews but 0."""
    found: dict[int, list[float | None]] = {point.seed: [] for point in points}
    for point in points:
        if point.reviewed:
            found[point.seed].append(point.figures["errors_found"])
    return {seed: _mean(values) for seed, values in sorted(found.items())}


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there and len(there) == len(values) else None
