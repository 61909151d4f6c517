"""What replays over several seeds come to: learning curves with intervals, and how well wrong labels are ranked."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit
from sklearn.metrics import roc_auc_score

from backend.evaluation.wrong_labels import estimate
from backend.replay.run import Moment
from tasks.ranking.suspects import suspicion
from tasks.schema import Head

LEVEL = 0.95
CURVES = ("wrong_labels_left", "errors_found", "accuracy", "macro_f1", "auc", "ece")


@dataclass(frozen=True)
class Point:
    """One replay at one moment, by seed: the figures of CURVES, and those of the wrong labels."""

    seed: int
    reviewed: int
    figures: Mapping[str, float | None]
    suspects_auroc: float | None
    precision_at_true_count: float | None
    estimated_wrong: tuple[float, float, float]
    true_wrong: int
    seconds: float


def point(seed: int, head: Head, moment: Moment) -> Point:
    """The figures of one moment."""
    figures = {"wrong_labels_left": moment.wrong_labels_left, "errors_found": moment.errors_found}
    figures |= {name: moment.figures[name] for name in CURVES if name in moment.figures}
    doubt = suspicion(moment.probabilities, moment.recorded, head)
    there = ~np.isnan(doubt)
    doubt, wrong, answered = doubt[there], moment.wrong[there], moment.answered[there]
    count = int(wrong.sum())
    ranked = 0 < count < len(wrong)
    first = np.argsort(-doubt, kind="stable")[:count]
    said = estimate(doubt, answered, wrong, seed) if len(doubt) else None
    return Point(
        seed=seed,
        reviewed=moment.reviewed,
        figures=figures,
        suspects_auroc=float(roc_auc_score(wrong, doubt)) if ranked else None,
        precision_at_true_count=float(wrong[first].mean()) if count else None,
        estimated_wrong=(said.total, said.low, said.high) if said is not None else (0.0, 0.0, 0.0),
        true_wrong=count,
        seconds=moment.seconds,
    )


def summary(strategy: str, points: Iterable[Point]) -> dict[str, Any]:
    """One strategy's replays as one object: per count of reviews [mean, low, high] over seeds of each of CURVES.

    suspects_auroc and precision_at_true_count are those before any review, estimated_wrong and its interval those after
    the last, each [mean, low, high] over seeds. Intervals are Student's over seeds; with one seed they are the mean.
    """
    by_count: dict[int, list[Point]] = defaultdict(list)
    for found in points:
        by_count[found.reviewed].append(found)
    counts = sorted(by_count)
    first, last = by_count[counts[0]], by_count[counts[-1]]
    curves = {
        name: [interval([found.figures[name] for found in by_count[count]]) for count in counts] for name in CURVES
    }
    covered = [found.estimated_wrong[1] <= found.true_wrong <= found.estimated_wrong[2] for found in last]
    return {
        "strategy": strategy,
        "seeds": len(first),
        "reviewed": counts,
        **curves,
        "suspects_auroc": interval([found.suspects_auroc for found in first]),
        "precision_at_true_count": interval([found.precision_at_true_count for found in first]),
        "estimated_wrong": interval([found.estimated_wrong[0] for found in last]),
        "estimated_wrong_covered": float(np.mean(covered)),
        "true_wrong": interval([float(found.true_wrong) for found in last]),
        "seconds": interval([found.seconds for found in last]),
    }


def interval(values: Sequence[float | None]) -> list[float] | None:
    """[mean, low, high] of the mean at LEVEL; None where a seed has no value."""
    if not values or any(value is None for value in values):
        return None
    given = np.array(values, dtype=np.float64)
    mean = float(given.mean())
    if len(given) < 2:
        return [mean, mean, mean]
    half = float(stdtrit(len(given) - 1, (1 + LEVEL) / 2) * given.std(ddof=1) / np.sqrt(len(given)))
    return [mean, mean - half, mean + half]
