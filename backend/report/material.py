"""What the report is made from: a project's tasks, answers and versions, read once, with no large column unneeded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session, load_only

from backend.learning.folds import HOLDOUT
from backend.registry import Registry
from backend.scored import Scored, of_version
from tasks import ledger
from tasks.codec import to_targets
from tasks.labels import Settled, by_task, settle, standing
from tasks.marks import marking
from tasks.schema import Head, Labels, Schema, parse_label_config
from tasks.spent import Spent, spent
from tasks.store import Store
from tasks.tables import Annotation, Entry, Project, Published, Task, Version

Floats = NDArray[np.float32]


class Marks(NamedTuple):
    """What is marked in a task's image: on record, by people, and what these reviewed of it together."""

    recorded: bool = False
    by_people: bool = False
    spent: Spent = Spent(0, 0)


NOTHING = Marks()


@dataclass(frozen=True)
class Item:
    """A task that is there, without its data."""

    id: int
    group: str | None
    site: str | None
    fold: int | None
    pixels: str | None
    is_labeled: bool
    settled: Settled
    marks: Marks = NOTHING

    @property
    def reviewed(self) -> bool:
        """Whether a person said anything of it that holds."""
        return bool(self.settled.adjudicated) or self.marks.by_people

    def corrected(self, head: Head) -> bool:
        """Whether a person checked the label on record of a head, and changed it."""
        name, settled = head.name, self.settled
        checked = name in settled.adjudicated and name in settled.current
        return checked and set(settled.current[name]) != set(settled.labels[name])


class Shown(NamedTuple):
    """How a task came to be shown, and by which version's order."""

    kind: str  # ranked, control, blind or holdout
    version: int


@dataclass(frozen=True)
class Material:
    """One moment of a project.

    annotations: all but deleted ones, by creation; with their results only where masks are learnt. shown: by the number
    of the prediction. versions: by number. actions: what each annotation did to its task (`ledger.action`), by its
    number, where masks are learnt. ledger: the chain's end.
    """

    project: Project
    schema: Schema
    registry: Registry
    items: Sequence[Item]
    annotations: Sequence[Annotation]
    shown: Mapping[int, Shown]
    versions: Sequence[Version]
    actions: Mapping[int, str]
    ledger: ledger.Head

    @property
    def head(self) -> Head | None:
        """The heaviest head: what the project is about; None where it is masks alone."""
        return max(self.schema.heads, key=lambda head: head.weight, default=None)

    @property
    def holdout(self) -> list[Item]:
        """The tasks that no model ever learnt from."""
        return [item for item in self.items if item.fold == HOLDOUT]

    def scored(self, number: int) -> Scored | None:
        """What a version says under the present label config; None where its folder is gone, as an old one's may be."""
        folder = self.registry.version(self.project.id, number)
        return of_version(folder).under(self.schema.learnt) if (folder / "predictions.npz").exists() else None

    def targets(self, head: Head, rows: Sequence[Labels]) -> Floats:
        """(N, C), NaN where there is no label, or one that the present label config does not know."""
        classes = set(head.classes)
        return to_targets([head], [row if set(row.get(head.name, ())) <= classes else {} for row in rows])[head.name]


def read(store: Store, registry: Registry, project_id: int) -> Material:
    """Read the project at one moment. Raises NoResultFound for a project that is not known."""
    columns: tuple[Any, ...] = (Task.id, Task.group, Task.site, Task.fold, Task.pixels, Task.is_labeled, Task.current)
    parts: tuple[Any, ...] = (
        *(Annotation.id, Annotation.task_id, Annotation.completed_by, Annotation.created_at, Annotation.updated_at),
        *(Annotation.lead_time, Annotation.was_cancelled, Annotation.parent_prediction, Annotation.labels),
        *(Annotation.flagged, Annotation.confidence, Annotation.origin, Annotation.deleted_at),
    )
    with store.snapshot() as session:
        project = session.get_one(Project, project_id)
        schema = parse_label_config(project.label_config)
        if schema.masks:
            parts += (Annotation.result,)
        there = (Task.project_id == project_id, Task.deleted_at.is_(None))
        tasks = session.execute(select(*columns).where(*there).order_by(Task.id)).all()
        annotations = session.scalars(
            select(Annotation)
            .options(load_only(*parts))
            .where(Annotation.project_id == project_id, Annotation.deleted_at.is_(None))
            .order_by(Annotation.created_at, Annotation.id)
        ).all()
        orders = select(Published.prediction_id, Published.kind, Published.version).where(
            Published.project_id == project_id, Published.prediction_id > 0
        )
        shown = {number: Shown(kind, version) for number, kind, version in session.execute(orders) if number}
        versions = session.scalars(
            select(Version).where(Version.project_id == project_id).order_by(Version.number)
        ).all()
        actions = _actions(session, project_id) if schema.masks else {}
        head = ledger.head(session, project_id)
    said = by_task(annotations)
    items = []
    for row in tasks:
        own = said.get(row.id, [])
        marks = _marks(schema, own) if schema.masks else NOTHING
        plain = (row.id, row.group, row.site, row.fold, row.pixels, row.is_labeled)
        items.append(Item(*plain, settle(own, row.current), marks))
    return Material(project, schema, registry, items, annotations, shown, versions, actions, head)


def _marks(schema: Schema, annotations: Sequence[Annotation]) -> Marks:
    found = standing(annotations)
    people = [spent(schema, row.result) for row in found.people if marking(schema, row.result)]
    both = Spent(sum(one.patches for one in people), sum(one.images for one in people))
    return Marks(any(marking(schema, row.result) for row in found.record), bool(people), both)


def _actions(session: Session, project_id: int) -> dict[int, str]:
    """What each annotation did to its task when it was last touched, as the ledger has it."""
    query = select(Entry.annotation_id, Entry.body["action"].as_string()).where(
        Entry.project_id == project_id, Entry.event.in_(["created", "changed"])
    )
    rows = session.execute(query.order_by(Entry.seq))
    return {number: act for number, act in rows if number is not None and act != "reread"}


def moment(text: str) -> datetime:
    """A time of Label Studio, which is UTC where it names no zone. Raises ValueError for what is no time."""
    time = datetime.fromisoformat(text)
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
