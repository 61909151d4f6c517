"""What replays over several seeds come to: learning curves with intervals, and how well wrong labels are ranked."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

from backend.evaluation.wrong_labels import estimate
from backend.replay import rankings
from backend.replay.run import Moment
from tasks.ranking.suspects import alternatives
from tasks.schema import Head

LEVEL = 0.95
MODEL = ("accuracy", "macro_f1", "auc", "ece")
CURVES = ("wrong_labels_left", "errors_found", *MODEL)


@dataclass(frozen=True)
class Point:
    """One replay at one moment, by seed: the figures of CURVES, and those of the wrong labels.

    unseen: those of MODEL, of all tasks instead of the hold-out alone (`Moment.unseen`).
    suspects: by ranking its AUROC, its precision at the true count and the share of errors in its first tenth, while
    nothing is reviewed; empty afterwards. estimated_wrong: with low and high of its interval; None without a model.
    """

    seed: int
    reviewed: int
    figures: Mapping[str, float | None]
    unseen: Mapping[str, float | None]
    suspects: Mapping[str, Mapping[str, float | None]]
    estimated_wrong: tuple[float, float, float] | None
    true_wrong: int
    seconds: float


def point(seed: int, head: Head, moment: Moment) -> Point:
    """The figures of one moment."""
    figures = {"wrong_labels_left": moment.wrong_labels_left, "errors_found": moment.errors_found}
    figures |= {name: moment.figures[name] for name in CURVES if name in moment.figures}
    known = ~np.isnan(moment.recorded).any(axis=1) & ~np.isnan(moment.doubt)
    doubt, recorded, wrong = moment.doubt[known], moment.recorded[known], moment.wrong[known]
    compared = {}
    if known.any() and not moment.reviewed:
        compared = rankings.compared(head, doubt, moment.probabilities[known], recorded, wrong)
    said = estimate(doubt, moment.answered[known], wrong, alternatives(head), seed) if known.any() else None
    return Point(
        seed=seed,
        reviewed=moment.reviewed,
        figures=figures,
        unseen={name: moment.unseen[name] for name in MODEL},
        suspects={name: asdict(ranked) for name, ranked in compared.items()},
        estimated_wrong=None if said is None else (said.total, said.low, said.high),
        true_wrong=int(wrong.sum()),
        seconds=moment.seconds,
    )


def summary(strategy: str, points: Iterable[Point]) -> dict[str, Any]:
    """One strategy's replays as one object: per count of reviews [mean, low, high] over seeds of each of CURVES.

    unseen: the same of MODEL, of all tasks.
    suspects_auroc and precision_at_true_count are those of the loop's ranking before any review, `suspects` has them
    beside cleanlab's; estimated_wrong and how often its interval held the truth are those after the last review. All
    are [mean, low, high] over seeds. Intervals are Student's; with one seed they are the mean.
    """
    by_count: dict[int, list[Point]] = defaultdict(list)
    for found in points:
        by_count[found.reviewed].append(found)
    counts = sorted(by_count)
    first, last = by_count[counts[0]], by_count[counts[-1]]
    curves = {
        name: [interval([found.figures[name] for found in by_count[count]]) for count in counts] for name in CURVES
    }
    unseen = {name: [interval([found.unseen[name] for found in by_count[count]]) for count in counts] for name in MODEL}
    suspects = {
        ranking: {
            figure: interval([found.suspects.get(ranking, {}).get(figure) for found in first])
            for figure in first[0].suspects[ranking]
        }
        for ranking in first[0].suspects
    }
    said = [(found.estimated_wrong, found.true_wrong) for found in last]
    covered = [guess is not None and guess[1] <= true <= guess[2] for guess, true in said]
    return {
        "strategy": strategy,
        "seeds": len(first),
        "reviewed": counts,
        **curves,
        "unseen": unseen,
        "suspects_auroc": suspects.get("loop", {}).get("auroc"),
        "precision_at_true_count": suspects.get("loop", {}).get("precision"),
        "suspects": suspects,
        "estimated_wrong": interval([None if guess is None else guess[0] for guess, _ in said]),
        "estimated_wrong_covered": sum(covered) / len(covered),
        "true_wrong": interval([float(true) for _, true in said]),
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
