"""What the reviews have shown so far: wrong labels found, what chance would have found, who follows the model.

All of it is about one head, the heaviest; what a person said last of a task holds (`settle`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from backend.evaluation import control, wrong_labels
from backend.evaluation.control import Arm
from backend.report.doubts import doubts
from backend.report.material import Item, Material, Shown
from backend.report.reviews import RANDOM
from tasks.codec import to_labels
from tasks.schema import Head


@dataclass(frozen=True)
class Review:
    """A task of the queue that a person has answered: how it came, whether its label on record was wrong, and what the
    model said then (None where that is not known, and of tasks that were not drawn at random).
    """

    item: Item
    kind: str  # ranked, control, blind or holdout
    wrong: bool
    model: tuple[str, ...] | None


def of_project(material: Material) -> dict[str, Any] | None:
    """The evidence as plain values, and in a line; None before any model, and where there are no labels but masks.

    line: "300 reviewed, 21 wrong labels found; at random it would have been 4 to 9", of tasks that came through the
    queue; then those that people answered outside it, as in a review file. Shares and counts come with the low and high
    of their interval at 95 %. error_rate_left: of the labels on record, those that are wrong and not corrected:
    estimated from all reviews; and by the control arm alone, which was drawn while more were wrong, and so says rather
    too much.
    """
    head = material.head
    if material.project.version is None or head is None:
        return None
    reviews = _reviews(material, head)
    recorded = [review for review in reviews if head.name in review.item.settled.current]
    drawn = [review for review in recorded if review.kind in RANDOM]
    random, ranked = _arm(drawn), _arm([review for review in recorded if review.kind == "ranked"])
    found = sum(review.wrong for review in recorded)
    chance = control.at_random(random, len(recorded))
    saved = control.labels_saved(ranked, random)
    bias = control.automation_bias(
        *_agreed(head, [review for review in reviews if review.kind == "control"]),
        *_agreed(head, [review for review in reviews if review.kind == "blind"]),
    )
    doubted = doubts(material, material.scored(material.project.version))
    wrong = (
        None
        if doubted is None
        else wrong_labels.estimate(doubted.suspicion, doubted.reviewed, doubted.wrong, doubted.classes)
    )
    line = f"{len(reviews)} reviewed, {found} wrong labels found"
    if chance is not None:
        line += f"; at random it would have been {chance[0]} to {chance[1]}"
    labels = [item for item in material.items if head.name in item.settled.current]
    through = {review.item.id for review in reviews}
    outside = [
        item.corrected(head) for item in labels if head.name in item.settled.adjudicated and item.id not in through
    ]
    if outside:
        line += f"; outside the queue {len(outside)} more, {sum(outside)} wrong labels found"
    return {
        "control": head.name,
        "line": line,
        "reviewed": len(reviews),
        "wrong_found": found,
        "at_random": None if chance is None else list(chance),
        "outside_the_queue": {"reviewed": len(outside), "wrong": sum(outside)},
        "drawn_at_random": asdict(random) | {"share_wrong": list(control.rate(random))},
        "labels_saved": {"saved": _finite(saved.saved), "low": _finite(saved.low), "high": _finite(saved.high)}
        | {"shown": saved.shown},
        "automation_bias": list(bias),
        "wrong_labels": None if wrong is None else asdict(wrong),
        "error_rate_left": {
            "labels": len(labels),
            "estimated": None if wrong is None else [count / len(labels) for count in wrong.left],
            "by_control": _left(control.rate(random), len(labels) - len(recorded) - len(outside), len(labels)),
        },
    }


def _reviews(material: Material, head: Head) -> list[Review]:
    """In the order of the tasks; how a task came is said by the first answer to something that was shown."""
    came = dict[int, Shown]()
    for row in material.annotations:
        shown = material.shown.get(row.parent_prediction or 0)
        if row.origin == "person" and shown is not None:
            came.setdefault(row.task_id, shown)
    there = [item for item in material.items if item.id in came and head.name in item.settled.adjudicated]
    said = _said(material, head, {item.id: came[item.id] for item in there})
    return [Review(item, came[item.id].kind, item.corrected(head), said.get(item.id)) for item in there]


def _said(material: Material, head: Head, came: Mapping[int, Shown]) -> dict[int, tuple[str, ...]]:
    """What the model said of those drawn at random when they were shown, as far as its version is still there."""
    orders, found = dict[int, list[int]](), dict[int, tuple[str, ...]]()
    for task, shown in came.items():
        if shown.kind in RANDOM:
            orders.setdefault(shown.version, []).append(task)
    for version, tasks in orders.items():  # one at a time: each is a large file
        scored = material.scored(version)
        if scored is not None and head.name in scored.probabilities:
            p, row_of = scored.probabilities[head.name], scored.row_of
            found |= {task: to_labels(head, p[row_of[task]]) for task in tasks if task in row_of}
    return found


def _arm(reviews: Sequence[Review]) -> Arm:
    return Arm(len(reviews), sum(review.wrong for review in reviews))


def _agreed(head: Head, reviews: Sequence[Review]) -> tuple[int, int]:
    """How often the answer was the model's, and of how many."""
    known = [review for review in reviews if review.model is not None]
    return sum(set(review.model or ()) == set(review.item.settled.labels[head.name]) for review in known), len(known)


def _left(rate: control.Share, unreviewed: int, labels: int) -> list[float] | None:
    """The control arm's rate of wrong labels among those that nobody has reviewed, as a share of all."""
    if rate.share is None or rate.low is None or rate.high is None or not labels:
        return None
    return [share * unreviewed / labels for share in (rate.share, rate.low, rate.high)]


def _finite(value: float | None) -> float | None:
    return value if value is not None and np.isfinite(value) else None
