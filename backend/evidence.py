"""What the reviews have shown so far: wrong labels found, what chance would have found, who follows the model.

All of it is about one head, the heaviest; what a person said last of a task holds (`settle`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from sqlalchemy import select

from backend.evaluation import control, wrong_labels
from backend.evaluation.control import Arm
from backend.registry import Registry
from backend.scored import Scored, of_version
from tasks.codec import to_labels, to_targets
from tasks.labels import by_task, settle
from tasks.schema import Head, Labels, Schema, parse_label_config
from tasks.store import Store
from tasks.tables import Annotation, Published, Task


@dataclass(frozen=True)
class Review:
    """A task that a person has answered: how it came, what was on record, what holds, what the model said then."""

    task: int
    kind: str  # ranked, control, blind or holdout
    recorded: tuple[str, ...] | None
    settled: tuple[str, ...]
    model: tuple[str, ...] | None

    @property
    def wrong(self) -> bool:
        """Whether the label on record was."""
        return self.recorded is not None and set(self.recorded) != set(self.settled)


def of_project(store: Store, registry: Registry, project_id: int) -> dict[str, Any] | None:
    """The evidence as plain values, and in a line; None before any model, or for a project that is not known.

    line: "300 reviewed, 21 wrong labels found; at random it would have been 4 to 9", of tasks that came through the
    queue; then those that people answered outside it, as in a review file. Shares and counts come with the low and high
    of their interval at 95 %. error_rate_left: of the labels on record, those that are wrong and not corrected:
    estimated from all reviews; and by the control arm alone, which was drawn while more were wrong, and so says rather
    too much.
    """
    project = store.project(project_id)
    if project is None or project.version is None:
        return None
    schema = parse_label_config(project.label_config)
    head = max(schema.heads, key=lambda head: head.weight)
    reviews, settled = _reviews(store, registry, project_id, schema, head)
    recorded = [review for review in reviews if review.recorded is not None]
    drawn = [review for review in recorded if review.kind in ("control", "blind")]
    random, ranked = _arm(drawn), _arm([review for review in recorded if review.kind == "ranked"])
    found = sum(review.wrong for review in recorded)
    chance = control.at_random(random, len(recorded))
    saved = control.labels_saved(ranked, random)
    bias = control.automation_bias(
        *_agreed([review for review in reviews if review.kind == "control"]),
        *_agreed([review for review in reviews if review.kind == "blind"]),
    )
    newest = _said(registry, project_id, project.version, schema)
    left = None if newest is None else _wrong_left(newest, head, settled)
    line = f"{len(reviews)} reviewed, {found} wrong labels found"
    if chance is not None:
        line += f"; at random it would have been {chance[0]} to {chance[1]}"
    through = {review.task for review in reviews}
    outside = [
        set(said[head.name]) != set(holds[head.name])
        for task, (said, holds, by_person) in settled.items()
        if by_person and head.name in said and task not in through
    ]
    if outside:
        line += f"; outside the queue {len(outside)} more, {sum(outside)} wrong labels found"
    labels = sum(head.name in said for said, _, _ in settled.values())
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
        "wrong_labels": None if left is None else asdict(left),
        "error_rate_left": {
            "labels": labels,
            "estimated": None if left is None else [count / labels for count in left.left],
            "by_control": _left(control.rate(random), labels - len(recorded) - len(outside), labels),
        },
    }


def _reviews(
    store: Store, registry: Registry, project_id: int, schema: Schema, head: Head
) -> tuple[list[Review], dict[int, tuple[Labels, Labels, bool]]]:
    """The reviews in the order of the tasks; and of every task what is on record, what holds, whether a person said."""
    with store.begin() as session:
        tasks = session.execute(  # not whole tasks: their data is large
            select(Task.id, Task.current)
            .where(Task.project_id == project_id, Task.deleted_at.is_(None))
            .order_by(Task.id)
        ).all()
        rows = session.scalars(
            select(Annotation)
            .where(Annotation.project_id == project_id, Annotation.deleted_at.is_(None))
            .order_by(Annotation.created_at)
        ).all()
        query = select(Published).where(Published.project_id == project_id, Published.prediction_id > 0)
        shown = {row.prediction_id: (row.kind, row.version) for row in session.scalars(query)}
    said = by_task(rows)
    scored: dict[int, Scored | None] = {}
    reviews, holds = [], {}
    for task in tasks:
        settled = settle(said.get(task.id, []), task.current)
        holds[task.id] = settled.current, settled.labels, head.name in settled.adjudicated
        parents = [row.parent_prediction for row in said.get(task.id, []) if row.origin == "person"]
        came = next((shown[parent] for parent in parents if parent in shown), None)
        if came is None or head.name not in settled.adjudicated:
            continue
        kind, version = came
        if version not in scored:
            scored[version] = _said(registry, project_id, version, schema)
        then = scored[version]
        model = None if then is None else (then.of(task.id) or {}).get(head.name)
        reviews.append(
            Review(
                task.id,
                kind,
                settled.current.get(head.name),
                settled.labels[head.name],
                None if model is None else to_labels(head, model),
            )
        )
    return reviews, holds


def _said(registry: Registry, project_id: int, version: int, schema: Schema) -> Scored | None:
    """What a version says under the present label config; None where its folder is gone, as an old one's may be."""
    folder = registry.version(project_id, version)
    return of_version(folder).under(schema.heads) if (folder / "predictions.npz").exists() else None


def _arm(reviews: Sequence[Review]) -> Arm:
    return Arm(len(reviews), sum(review.wrong for review in reviews))


def _agreed(reviews: Sequence[Review]) -> tuple[int, int]:
    """How often the answer was the model's, and of how many."""
    known = [review for review in reviews if review.model is not None]
    return sum(set(review.model or ()) == set(review.settled) for review in known), len(known)


def _wrong_left(
    scored: Scored, head: Head, settled: Mapping[int, tuple[Labels, Labels, bool]]
) -> wrong_labels.WrongLabels | None:
    """The estimate over all scored tasks with a label on record."""
    if head.name not in scored.probabilities or scored.scores is None:
        return None
    rows = [row for row, task in enumerate(scored.ids.tolist()) if task in settled]
    there = [settled[int(scored.ids[row])] for row in rows]
    classes = set(head.classes)
    recorded = to_targets([head], [said if set(said.get(head.name, ())) <= classes else {} for said, _, _ in there])
    # The ranking that picks, which knows the other labels too: given what the image alone says, being picked would say
    # more of a label, and the estimate come out too high.
    doubt = scored.scores.head_disagreement[rows, scored.scores.heads.index(head.name)]
    known = ~np.isnan(recorded[head.name]).any(axis=1)
    if not known.any():
        return None
    reviewed = np.array([by_person for _, _, by_person in there], dtype=bool)
    wrong = np.array(
        [by and set(said.get(head.name, ())) != set(holds.get(head.name, ())) for said, holds, by in there], dtype=bool
    )
    return wrong_labels.estimate(doubt[known], reviewed[known], wrong[known])


def _left(rate: control.Share, unreviewed: int, labels: int) -> list[float] | None:
    """The control arm's rate of wrong labels among those that nobody has reviewed, as a share of all."""
    if rate.share is None or rate.low is None or rate.high is None or not labels:
        return None
    return [share * unreviewed / labels for share in (rate.share, rate.low, rate.high)]


def _finite(value: float | None) -> float | None:
    return value if value is not None and np.isfinite(value) else None
