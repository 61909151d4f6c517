"""Publishing an order to Label Studio: predictions whose score is the place in the queue, then the flip to them.

Every function can be killed anywhere and run again: what is to be published is in the store before it is sent, and
what Label Studio already has is asked for before anything is sent twice.
"""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import structlog
from sqlalchemy import ColumnElement, Select, and_, func, or_, select
from sqlalchemy.orm import Session

from tasks import ledger
from tasks.client import Client, LabelStudioError
from tasks.codec import decode_result
from tasks.marks import fits
from tasks.project import SAMPLING
from tasks.ranking.interleave import Kind, queue_key
from tasks.referred import with_expert
from tasks.reopen import to_review
from tasks.schema import Schema, parse_label_config
from tasks.store import Store, lock_project
from tasks.tables import Annotation, Project, Published, Task, Version

log = structlog.get_logger()

SENT = 0
"""`Published.prediction_id` of a row that was sent and not seen yet."""
UNDER_WAY = 150.0
"""Seconds for which an import whose answer never came may still be at work in Label Studio."""


class Unsettled(LabelStudioError):
    """An import was cut off, by a kill or a timeout, and may still be at work: sending it again would import twice."""


def queue_name(version: int) -> str:
    """`model_version` of the published predictions; quick view shows their score as a percentage, hence the words."""
    return f"v{version}-queue-order"


def live_name(version: int | None) -> str:
    """`model_version` of live answers, never a published one: they would jump the queue."""
    return f"v{version or 0}-live"


def number_of(name: str) -> int:
    """The version in a `model_version` of ours; 0 for somebody else's."""
    found = re.fullmatch(r"v(\d+)-(?:queue-order|live)", name)
    return int(found[1]) if found else 0


@dataclass(frozen=True)
class Planned:
    """A task to publish: what its annotator is shown, and the hybrid score (None where it was drawn at random).

    similar: HTML of similar cases, for the place that the label config has for it.
    """

    task: int
    kind: Kind
    score: float | None
    why: str
    shown: list[dict[str, Any]]
    similar: str | None = None


def enter(store: Store, project_id: int, version: int, planned: Sequence[Planned]) -> int:
    """Put tasks at the end of a version's order, in the store; returns how many were new to it.

    Where the version orders the queue already, this is a refill, and the ledger says so.
    """
    with store.begin() as session:
        lock_project(session, project_id)
        rows = select(Published).where(Published.project_id == project_id, Published.version == version)
        known = {row.task_id: row.rank for row in session.scalars(rows)}
        rank = max(known.values(), default=-1) + 1
        new = [item for item in planned if item.task not in known]
        for offset, item in enumerate(new):
            session.add(
                Published(
                    project_id=project_id,
                    version=version,
                    task_id=item.task,
                    rank=rank + offset,
                    kind=item.kind,
                    score=item.score,
                    why=item.why,
                    shown=item.shown,
                    similar=item.similar,
                    at=time.time(),
                )
            )
        if new and session.get_one(Project, project_id).published == version:
            ledger.append(session, project_id, "refilled", {"version": version, "tasks": len(new)})
    return len(new)


def waiting(store: Store, project_id: int, version: int) -> int:
    """How many tasks of a version's order in the store still wait for an annotation or a review."""
    with store.begin() as session:
        query = (
            select(func.count())
            .select_from(Published)
            .join(Task, (Task.project_id == Published.project_id) & (Task.id == Published.task_id))
            .where(
                Published.project_id == project_id,
                Published.version == version,
                Task.deleted_at.is_(None),
                or_(Task.is_labeled.is_(False), and_(*to_review(project_id))),
                Task.id.not_in(with_expert(project_id)),
            )
        )
        return session.scalar(query) or 0


def push(store: Store, client: Client, project_id: int, version: int) -> int:
    """Import what Label Studio does not have yet of a version, in one request; returns how many were imported.

    Only in the project's turn. Tasks that are gone in Label Studio are left out: one of them would make it refuse all.
    Raises Unsettled while an earlier import may still be at work, and LabelStudioError when fewer were created than
    were sent: the order would have holes.
    """
    from label_studio_sdk.label_interface import LabelInterface  # takes seconds to import; web workers need it not

    living = _record_ids(store, client, project_id, version)
    with store.begin() as session:
        unsent = [row for row in _unsent(session, project_id, version) if row.task_id in living]
        if not unsent:
            return 0
        if any(row.prediction_id == SENT and time.time() - row.at < UNDER_WAY for row in unsent):
            raise Unsettled(
                f"the answer to an import of {queue_name(version)} never came: waiting for what Label Studio makes of"
                f" it, {UNDER_WAY:.0f} s at most"
            )
        project = session.get_one(Project, project_id)
        interface = LabelInterface(project.label_config)
        unsent = _fitting(session, parse_label_config(project.label_config), unsent)
        body = []
        for row in unsent:
            prediction = {
                "task": row.task_id,
                "result": row.shown,
                "score": queue_key(row.rank),
                "model_version": queue_name(version),
            }
            # Label Studio's fast import skips its validation, and its slow one drops invalid items with a 201.
            if errors := interface.validate_prediction(prediction, return_errors=True):
                raise LabelStudioError(f"task {row.task_id}: Label Studio would drop the prediction: {errors}")
            body.append(prediction)
        for row in unsent:
            row.prediction_id, row.at = SENT, time.time()
    try:
        created = client.import_predictions(project_id, body)
    except (LabelStudioError, httpx.ConnectError, httpx.ConnectTimeout) as error:
        if not isinstance(error, LabelStudioError) or 400 <= (error.status or 0) < 500:  # never arrived, or refused
            with store.begin() as session:
                for row in _unsent(session, project_id, version):
                    row.prediction_id = None
        raise
    if created != len(body):
        raise LabelStudioError(f"{queue_name(version)}: {len(body)} predictions were sent, {created} were created")
    _record_ids(store, client, project_id, version)
    return len(body)


def _fitting(session: Session, schema: Schema, rows: Sequence[Published]) -> list[Published]:
    """What the present label config can show; the rest is forgotten, so that a refill plans those tasks anew."""
    fitting = [row for row in rows if fits(schema, row.shown) and not decode_result(schema, row.shown).problems]
    for row in set(rows).difference(fitting):
        log.info("left out: the label config has changed", project=row.project_id, task=row.task_id)
        session.delete(row)
    return fitting


def _living(session: Session, project_id: int, version: int, *conditions: ColumnElement[bool]) -> Sequence[Published]:
    """A version's order, without tasks that were deleted or are with the expert."""
    query = (
        select(Published)
        .join(Task, (Task.project_id == Published.project_id) & (Task.id == Published.task_id))
        .where(
            Published.project_id == project_id,
            Published.version == version,
            Task.deleted_at.is_(None),
            Task.id.not_in(with_expert(project_id)),
            *conditions,
        )
        .order_by(Published.rank)
    )
    return session.scalars(query).all()


def _unsent(session: Session, project_id: int, version: int) -> Sequence[Published]:
    return _living(session, project_id, version, func.coalesce(Published.prediction_id, SENT) == SENT)


def _record_ids(store: Store, client: Client, project_id: int, version: int, *, again: bool = False) -> set[int]:
    """Keep the numbers Label Studio gave to a version's predictions: annotations name them as their parent.

    again: also of those that have one, which may be gone. Returns which of these tasks Label Studio still has.
    """
    chosen = _living if again else _unsent
    with store.begin() as session:
        ids = [row.task_id for row in chosen(session, project_id, version)]
    name, found = queue_name(version), set[int]()
    for page in client.tasks_by_id(project_id, ids):
        numbers = {
            task["id"]: next((row["id"] for row in task["predictions"] if row["model_version"] == name), None)
            for task in page
        }
        with store.begin() as session:
            for row in chosen(session, project_id, version):
                number = numbers.get(row.task_id, row.prediction_id)
                if number is not None or row.prediction_id != SENT:
                    row.prediction_id = number
        found.update(numbers)
    return found


def flip(store: Store, client: Client, project_id: int, version: int) -> None:
    """Let a pushed version order the queue: one atomic change of the project's model version. In its turn only.

    A version of which nothing was pushed, since nothing waits for an annotation, takes nothing over.
    """
    with store.begin() as session:
        pushed = _pushed(session, project_id, version)
        if not pushed:
            log.info("nothing to publish", project=project_id, version=version)
            return
        project = session.get_one(Project, project_id)
        if project.connection == "none":
            log.info("disconnected meanwhile: nothing is published", project=project_id, version=version)
            return
        if project.published != version:
            project.published = version
            session.get_one(Version, (project_id, version)).published_at = time.time()
            ledger.append(session, project_id, "published", {"version": version, "tasks": pushed})
            log.info("published", project=project_id, version=version, tasks=pushed)
    # Last, so that a kill before it leaves the repair to the next guard.
    client.update_project(project_id, model_version=queue_name(version), sampling=SAMPLING)


def _pushed(session: Session, project_id: int, version: int) -> int:
    """How many living tasks have a prediction of that version, as far as we know."""
    return len(_living(session, project_id, version, Published.prediction_id > SENT))


def guard(store: Store, client: Client, project_id: int) -> list[str]:
    """Repair what makes the queue silently random; returns what was repaired, and what cannot be.

    Predictions that somebody deleted (Label Studio keeps their version as the project's, and orders nothing), a
    changed sampling, a changed model version. A project that wants several annotations a task is the admin's to judge.
    """
    with store.begin() as session:
        version = session.get_one(Project, project_id).published
        if version is None:
            return []
        pushed = _pushed(session, project_id, version)
        reopened = session.scalar(
            select(func.count()).where(
                Task.project_id == project_id,
                Task.overlap_before.is_not(None),
                Task.id.not_in(with_expert(project_id)),
            )
        )
    repaired, name = [], queue_name(version)
    if client.model_versions(project_id).get(name, 0) < pushed:
        _record_ids(store, client, project_id, version, again=True)
        if sent := push(store, client, project_id, version):
            repaired.append(f"{sent} predictions of {name} were deleted in Label Studio and are sent again")
    remote = client.project(project_id)
    if reopened and remote["maximum_annotations"] > 1:
        repaired.append(
            f"the project wants {remote['maximum_annotations']} annotations a task (maximum_annotations): Label Studio"
            f" then serves the {reopened} reopened tasks before all others, in no order; with 1 it keeps the order"
        )
    wanted = {"sampling": SAMPLING, "model_version": name}
    changed = {field: value for field, value in wanted.items() if remote[field] != value}
    if changed:
        client.update_project(project_id, **changed)
        log.warning("queue settings were changed in Label Studio and are repaired", project=project_id, **changed)
    return repaired + [f"{field} was {remote[field]!r}, set back to {value!r}" for field, value in changed.items()]


def open_head(store: Store, project_id: int, *, skipped: bool = True, person: int | None = None) -> list[int]:
    """The tasks of the published order that still wait for an annotation, first first.

    skipped: also those that somebody skipped, which Label Studio offers to the others only. person: only what that
    user can be served.
    """
    with store.begin() as session:
        query = (
            select(Published.task_id)
            .join(Project, Project.id == Published.project_id)
            .join(Task, (Task.project_id == Published.project_id) & (Task.id == Published.task_id))
            .where(
                Published.project_id == project_id,
                Published.version == Project.published,
                Task.deleted_at.is_(None),
                Task.is_labeled.is_(False),
                Task.id.not_in(with_expert(project_id)),
            )
            .order_by(Published.rank)
        )
        if person is not None:
            query = query.where(Task.id.not_in(answered_by(project_id, person)))
        return list(session.scalars(query if skipped else query.where(Task.cancelled == 0)))


def answered_by(project_id: int, person: int) -> Select[int]:
    """Tasks that Label Studio serves to that user no more: annotated or skipped, by hand or in an import."""
    return select(Annotation.task_id).where(
        Annotation.project_id == project_id, Annotation.completed_by == person, Annotation.deleted_at.is_(None)
    )


def answered_at_random(project_id: int) -> Select[int]:
    """Tasks that a person annotated as the control arm drew them."""
    return (
        select(Annotation.task_id)
        .join(
            Published,
            (Published.project_id == Annotation.project_id) & (Published.prediction_id == Annotation.parent_prediction),
        )
        .where(
            Annotation.project_id == project_id,
            Annotation.origin == "person",
            Annotation.deleted_at.is_(None),
            Published.kind.in_(["control", "blind"]),
        )
        .distinct()
    )
