"""Whether enough is reviewed, and what further reviews would buy: the criteria and forecasts of one project."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from backend.evaluation import forecast, stopping
from backend.evaluation.compare import Difference
from backend.evaluation.control import Arm
from backend.evaluation.forecast import HORIZONS, POINTS, Estimate, Past
from backend.evaluation.stopping import BACK, Criterion
from backend.learning.folds import HOLDOUT
from backend.report import dice, models, reviews
from backend.report.doubts import doubts
from backend.report.material import Floats, Item, Material, moment
from backend.scored import Scored
from backend.settings import Settings
from tasks.ranking.hybrid import weights_of
from tasks.ranking.interleave import lay_out
from tasks.schema import MaskHead
from tasks.tables import Version

NEWEST = 12  # versions that are looked at: each is a file of answers to read
FIGURES = {"auc": "AUC", "macro_f1": "macro F1"}


def advice(material: Material, settings: Settings, waiting: Sequence[int]) -> dict[str, Any] | None:
    """Whether to stop and why, and what the next reviews buy; None before any model.

    settings: tuned to the project. waiting: open tasks of the published order, first first. Intervals are lists of
    value, low and high. said: why there is no forecast.
    """
    if material.project.version is None:
        return None
    trained, imported = _trained(material), material.project.probabilities is not None
    left = len(_unreviewed(material))
    scored = material.scored(material.project.version)
    answers = [(row.origin, row.lead_time) for row in material.annotations]
    criteria = [*budgets(answers, settings), *_judged(material, settings, trained, scored)]
    reasons = stopping.reasons(criteria)
    return {
        "stop": bool(reasons),
        "reasons": [row.said for row in reasons],
        "stopped": material.project.stopped,
        "mode": settings.stop,
        "line": _line(material.project.stopped, reasons),
        "criteria": [asdict(row) for row in criteria],
        "wrong_labels": _finds(material, settings, scored, waiting),
        "figures": [] if imported else _figures(models.curve(replace(material, versions=trained)), left),
    }


def budgets(answers: Iterable[tuple[str, float | None]], settings: Settings) -> list[Criterion]:
    """The two criteria that need no model, from the origin and lead time of annotations that are there.

    Annotations that people made count; hours also those of skips.
    """
    rows = [(origin, seconds) for origin, seconds in answers if origin in ("person", "skipped")]
    return [
        stopping.annotations(sum(origin == "person" for origin, _ in rows), settings.budget_annotations),
        stopping.hours([seconds for _, seconds in rows], settings.budget_hours),
    ]


def past(material: Material) -> list[dict[str, Any]]:
    """What was forecast at earlier versions and what came: wrong labels until the next version, and its figures.

    Each a `forecast.Past` as values, with covered, of (wrong_labels, auc or macro_f1) and its name for people. A
    forecast is made from the reviews and versions of its time, by the labels that hold now.
    """
    trained = _trained(material)
    rows = [("wrong_labels", "wrong labels", row) for row in _earlier_finds(material, trained)]
    curve = models.curve(replace(material, versions=trained))
    for name, spoken in FIGURES.items():
        points = [row for row in curve if row[name] is not None]
        rows += [(name, spoken, row) for row in _earlier_figures(points, name)]
    return [asdict(row) | {"of": of, "name": spoken, "covered": row.covered} for of, spoken, row in rows]


def _trained(material: Material) -> list[Version]:
    """The newest versions that learnt from labels: neither imported probabilities nor copies of earlier versions."""
    return [row for row in material.versions if row.labels and "of" not in (row.verdict or {})][-NEWEST:]


def _judged(
    material: Material, settings: Settings, trained: Sequence[Version], scored: Scored | None
) -> list[Criterion]:
    sure: Floats = np.zeros(0, dtype=np.float32)
    if scored is not None and scored.scores is not None:
        rows = [scored.row_of[item.id] for item in _unreviewed(material) if item.id in scored.row_of]
        sure = scored.scores.uncertainty[rows]
    totals = reviews.found(material)
    control = Arm(len(totals["random"]), totals["random"][-1] if totals["random"] else 0)
    head = material.head
    recorded = 0 if head is None else sum(head.name in item.settled.current for item in material.items)
    return [
        stopping.uncertainty(sure, settings.stop_uncertainty),
        _plateau(material, trained),
        stopping.finds((np.diff(totals["ranked"], prepend=0) > 0).tolist(), control, recorded),
    ]


def _plateau(material: Material, trained: Sequence[Version]) -> Criterion:
    """The model in force after the newest training against that of BACK trainings before, on hold-out tasks of both."""
    if material.project.probabilities is not None:
        said = "The order comes from imported probabilities: no model of ours is there to gain."
        return Criterion("plateau", None, said)
    head, in_force = material.head or max(material.schema.masks, key=lambda head: head.weight), _in_force(material)
    numbers = [in_force[version.number] for version in trained[-BACK - 1 :]]
    answers = [(number, material.scored(number)) for number in numbers]
    there = [
        (number, one)
        for number, one in answers
        if one is not None and (head.name in one.probabilities or head.name in one.drawn)
    ]
    if len(there) < BACK + 1:
        return stopping.plateau("", 0, 0, None, len(there))
    (first, before), (last, after) = there[0], there[-1]
    if first == last:
        return stopping.plateau("", first, last, None, len(there))
    if isinstance(head, MaskHead):
        return stopping.plateau("Dice", first, last, dice.gain(material, head, first, last), len(there))
    items = models.seen_by(material.holdout, [before, after])
    figures = models.compared(material, head, before, after, items)["figures"]
    name = "macro_f1" if figures["auc"]["before"] is None else "auc"
    return stopping.plateau(FIGURES[name], first, last, Difference(**figures[name]), len(there))


def _in_force(material: Material) -> dict[int, int]:
    """By the number of each version, that of the model in force once it was made: another one where it was refused."""
    found, now = dict[int, int](), 0
    for version in material.versions:
        now = version.number if (version.verdict or {}).get("takes_over", True) else now
        found[version.number] = now
    return found


def _line(stopped: str | None, reasons: Sequence[Criterion]) -> str:
    if stopped is not None:
        return f"Stopped, no training comes unasked: {stopped}"
    if reasons:
        return f"Enough is reviewed. {' '.join(row.said for row in reasons)}"
    return "Go on reviewing: nothing says yet that it is enough."


def _finds(material: Material, settings: Settings, scored: Scored | None, waiting: Sequence[int]) -> dict[str, Any]:
    there = doubts(material, scored)
    if scored is None or there is None:
        said = "No forecast of wrong labels: no task with a label on record was scored by a model."
        return {"said": said, "next": []}
    row_of = {item.id: row for row, item in enumerate(there.items)}
    order = [row_of[task] for task in _queue(material, settings, scored, waiting) if task in row_of]
    queue = np.array([row for row in order if not there.reviewed[row]], dtype=np.intp)
    if not len(queue):
        return {"said": "No forecast of wrong labels: no label on record is left to review.", "next": []}
    found = forecast.finds(there.suspicion, there.reviewed, there.wrong, queue, there.classes)
    return {
        "said": None,
        "next": [
            {"reviews": row.reviews, "found": _list(row.found), "rate_left": _list(row.rate_left)} for row in found
        ],
    }


def _queue(material: Material, settings: Settings, scored: Scored, waiting: Sequence[int]) -> list[int]:
    """The tasks to come: those published, then the others by uncertainty and disagreement, with the random slots.

    Without diversity, which would take the queue's whole planning; the draws of the random slots are one of many.
    """
    published = set(waiting)
    left = [item for item in _unreviewed(material) if item.id not in published and item.id in scored.row_of]
    pool = [item.id for item in left if item.fold != HOLDOUT]
    ranked = pool
    if scored.scores is not None:
        recorded = sum(bool(item.settled.current) or item.marks.recorded for item in left)
        base = scored.scores.base(weights_of(settings.preset, recorded=2 * recorded > len(left)))
        order = np.argsort(-base[[scored.row_of[task] for task in pool]], kind="stable")
        ranked = [pool[row] for row in order.tolist()]
    if not settings.random_slots:
        return [*waiting, *ranked]
    frozen = [item.id for item in left if item.fold == HOLDOUT]
    drawn = len(reviews.found(material)["random"])
    rng = np.random.default_rng([settings.seed, material.project.version or 0])
    return [*waiting, *(slot.task for slot in lay_out(ranked, pool, frozen, max(HORIZONS), drawn, rng))]


def _unreviewed(material: Material) -> list[Item]:
    """The tasks of which no person has said anything that holds, nor asked the expert."""
    return [item for item in material.items if not item.reviewed and not item.settled.flagged]


def _figures(curve: Sequence[dict[str, Any]], left: int) -> list[dict[str, Any]]:
    """left: tasks that nobody has reviewed, past which no horizon goes."""
    found, horizons = [], sorted({min(horizon, left) for horizon in HORIZONS} - {0})
    for name, spoken in FIGURES.items():
        points = [row for row in curve if row[name] is not None]
        if not points:
            continue
        done = [row["reviewed"] for row in points]
        ahead = [done[-1] + horizon for horizon in horizons]
        then = forecast.figure(done, [row[name] for row in points], ahead)
        said = None if horizons else f"{spoken}: every task is reviewed."
        if then is None:
            said = f"{spoken}: too few versions to tell, {len(points)} of {POINTS}."
        found.append(
            {
                "figure": name,
                "name": spoken,
                "now": points[-1][name],
                "said": said,
                "next": [
                    {"reviews": horizon, "then": _list(row)} for horizon, row in zip(horizons, then or [], strict=False)
                ],
            }
        )
    return found


def _earlier_figures(points: Sequence[dict[str, Any]], name: str) -> list[Past]:
    found = []
    for place in range(POINTS, len(points)):
        before, then = points[:place], points[place]
        if then["reviewed"] == before[-1]["reviewed"]:  # a version without a review before it was no forecast's matter
            continue
        said = forecast.figure([row["reviewed"] for row in before], [row[name] for row in before], [then["reviewed"]])
        assert said is not None  # POINTS versions are before it
        ahead = then["reviewed"] - before[-1]["reviewed"]
        found.append(Past(before[-1]["version"], ahead, said[0], then[name]))
    return found


def _earlier_finds(material: Material, trained: Sequence[Version]) -> list[Past]:
    first: dict[int, float] = {}
    for row in material.annotations:
        if row.origin == "person":
            first.setdefault(row.task_id, moment(row.created_at).timestamp())
    found = []
    for version, following in zip(trained, trained[1:], strict=False):
        there = doubts(material, material.scored(version.number))
        if there is None:
            continue
        when = np.array([first.get(item.id, np.inf) for item in there.items])
        known = there.reviewed & (when <= version.created_at)
        came = np.flatnonzero(there.reviewed & (when > version.created_at) & (when <= following.created_at))
        if len(came):
            said = forecast.among(there.suspicion, known, there.wrong & known, came, there.classes)
            found.append(Past(version.number, len(came), said, float(there.wrong[came].sum())))
    return found


def _list(estimate: Estimate) -> list[float]:
    return [estimate.value, estimate.low, estimate.high]
