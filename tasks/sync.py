"""Reconcile: make the store equal to Label Studio, whatever webhooks were lost, repeated or reordered.

Incremental by `task.updated_at`, which moves with every change of an annotation; a full pass when the number of
tasks says that some were deleted (nothing else tells), and once a day.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from tasks import ledger
from tasks.client import Client
from tasks.codec import Decoded, decode_current, decode_result
from tasks.schema import Schema, parse_label_config
from tasks.store import Store
from tasks.tables import Annotation, Project, Published, Task

log = structlog.get_logger()

FULL_EVERY = 24 * 3600.0  # seconds
OVERLAP = timedelta(seconds=60)  # before the last sync began: a slow transaction may have committed since


@dataclass
class Changes:
    """What a reconcile found."""

    tasks: int = 0
    annotations: int = 0  # created, changed or deleted
    full: bool = False


def reconcile(
    store: Store,
    client: Client,
    project_id: int,
    *,
    full: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Changes:
    """Bring the store up to date with one project.

    Args:
        full: read every task, and mark those that are gone as deleted.
        progress: called with tasks read and their number.
    Raises:
        LabelStudioError, httpx.HTTPError: Label Studio cannot be asked; the store keeps what it had.
        SchemaError: the project's label config has nothing to learn.
    """
    began = client.now()
    remote = client.project(project_id)
    schema = parse_label_config(remote["label_config"])
    with store.begin() as session:
        project = session.get_one(Project, project_id)
        project.title, project.label_config = remote["title"], remote["label_config"]
        known = _count_tasks(session, project_id)
        cursor = project.cursor
        full = full or cursor is None or time.time() - (project.full_sync_at or 0.0) > FULL_EVERY

    changes = Changes(full=full)
    since = None if full else cursor
    seen: set[int] = set()
    for page in client.tasks(project_id, since):
        with store.begin() as session:
            _apply_page(session, project_id, schema, page, changes)
        seen.update(row["id"] for row in page)
        if progress is not None:
            progress(len(seen), max(remote["task_number"], len(seen)))
    if full:
        # A deletion while we read moves tasks between pages, so those that were not met are asked for by number.
        for page in client.tasks_by_id(project_id, sorted(_known(store, project_id) - seen)):
            with store.begin() as session:
                _apply_page(session, project_id, schema, page, changes)
            seen.update(row["id"] for row in page)
    with store.begin() as session:
        project = session.get_one(Project, project_id)
        project.cursor = (began - OVERLAP).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        project.synced_at = time.time()
        if full:
            project.full_sync_at = time.time()
            _forget(session, project_id, seen, changes)
        gone = not full and _count_tasks(session, project_id) != remote["task_number"]
    if gone:
        log.info("tasks were deleted in Label Studio", project=project_id, known=known)
        return reconcile(store, client, project_id, full=True, progress=progress)
    if changes.annotations or full:
        log.info("reconciled", project=project_id, **vars(changes))
    return changes


def _count_tasks(session: Session, project_id: int) -> int:
    query = select(func.count()).where(Task.project_id == project_id, Task.deleted_at.is_(None))
    return session.scalar(query) or 0


def _known(store: Store, project_id: int) -> set[int]:
    with store.begin() as session:
        query = select(Task.id).where(Task.project_id == project_id, Task.deleted_at.is_(None))
        return set(session.scalars(query))


def _utc(moment: str) -> str:
    """Label Studio's time in one form, so that times compare as text."""
    return datetime.fromisoformat(moment).astimezone(UTC).isoformat(timespec="microseconds")


def _apply_page(
    session: Session, project_id: int, schema: Schema, page: list[dict[str, Any]], changes: Changes
) -> None:
    ids = [row["id"] for row in page]
    tasks = {
        task.id: task for task in session.scalars(select(Task).where(Task.project_id == project_id, Task.id.in_(ids)))
    }
    annotations: dict[int, dict[int, Annotation]] = {task: {} for task in ids}
    query = select(Annotation).where(Annotation.project_id == project_id, Annotation.task_id.in_(ids))
    for annotation in session.scalars(query):
        annotations[annotation.task_id][annotation.id] = annotation
    for row in page:
        task = tasks.get(row["id"])
        if task is None:
            task = Task(project_id=project_id, id=row["id"], group=None, site=None, fold=None, pixels=None)
            session.add(task)
        if task.updated_at != _utc(row["updated_at"]):
            changes.tasks += 1
        _apply_task(task, row, schema)
        known = annotations[task.id]
        for remote in row.get("annotations", []):
            changes.annotations += _apply_annotation(session, schema, task, known.get(remote["id"]), remote)
        there = {remote["id"] for remote in row.get("annotations", [])}
        actor = _person(row.get("updated_by"))
        for annotation in known.values():
            if annotation.deleted_at is None and annotation.id not in there:
                _delete(session, annotation, actor)
                changes.annotations += 1


def _apply_task(task: Task, row: dict[str, Any], schema: Schema) -> None:
    labels, problems = decode_current(schema, row["data"])
    image = str(row["data"].get(schema.image_field) or "")
    if task.image is not None and task.image != image:
        task.pixels = task.image_error = None  # another image: read it anew
    task.data, task.image = row["data"], image
    task.current, task.problems = labels, list(problems)
    task.site = _text(row["data"], schema.site_field)
    group = _text(row["data"], schema.group_field)
    if group is not None and group != task.group:
        task.group, task.fold = group, None  # another patient: the fold must be that patient's
    task.is_labeled = bool(row["is_labeled"])
    task.annotations, task.cancelled = row["total_annotations"], row["cancelled_annotations"]
    task.updated_at, task.updated_by = _utc(row["updated_at"]), _person(row.get("updated_by"))
    task.deleted_at = None


def _text(data: dict[str, Any], field: str | None) -> str | None:
    value = data.get(field) if field is not None else None
    return None if value in (None, "") else str(value)


def _person(value: Any) -> int | None:
    """A user's number, however this call writes it: a number, an object, or a list of objects."""
    if isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, dict):
        value = value.get("id", value.get("user_id"))
    return value if isinstance(value, int) else None


def _origin(remote: dict[str, Any], decoded: Decoded, known: Annotation | None) -> str:
    """Who made it: only what a person submitted counts.

    Bulk creation leaves `updated_by` empty: with a prediction as parent it is "Create annotations from
    predictions", signed with the clicker's name; without, an import. Deleting a version empties the parent, so
    what was once seen to be machine-made stays so until a person edits it.
    """
    if remote["was_cancelled"]:
        return "skipped"
    if not decoded.labels and not decoded.flagged:
        return "empty"  # also where only our own text was submitted
    if _person(remote.get("updated_by")) is not None:
        return "person"
    machine = remote.get("parent_prediction") is not None or (known is not None and known.origin == "machine")
    return "machine" if machine else "imported"


def _apply_annotation(
    session: Session, schema: Schema, task: Task, known: Annotation | None, remote: dict[str, Any]
) -> bool:
    """Take one annotation over; says whether anything of it was new."""
    if (
        known is not None
        and known.deleted_at is None
        and known.created_at == _utc(remote["created_at"])
        and known.updated_at == _utc(remote["updated_at"])
    ):
        return False
    decoded = decode_result(schema, remote["result"])
    labels = {head: list(names) for head, names in decoded.labels.items()}
    before = known.labels if known is not None and known.deleted_at is None else None
    annotation = known
    if annotation is None:
        annotation = Annotation(project_id=task.project_id, id=remote["id"], task_id=task.id)
        session.add(annotation)
    parent = remote.get("parent_prediction")
    annotation.origin = _origin(remote, decoded, known)
    annotation.parent_prediction = parent if parent is not None else annotation.parent_prediction
    annotation.completed_by = _person(remote.get("completed_by"))
    annotation.updated_by = _person(remote.get("updated_by"))
    annotation.created_at, annotation.updated_at = _utc(remote["created_at"]), _utc(remote["updated_at"])
    annotation.lead_time, annotation.was_cancelled = remote.get("lead_time"), remote["was_cancelled"]
    annotation.result, annotation.labels = remote["result"], labels  # type: ignore[assignment]
    annotation.flagged, annotation.confidence = decoded.flagged, decoded.confidence
    annotation.trained_in = annotation.deleted_at = None
    shown = _shown(session, annotation)
    ledger.append(
        session,
        task.project_id,
        "created" if before is None else "changed",
        {
            "from": before if before is not None else task.current,
            "to": labels,
            "origin": annotation.origin,
            "flagged": annotation.flagged,
            "confidence": annotation.confidence,
            "lead_time": annotation.lead_time,
            "shown": shown,
            "problems": list(decoded.problems),
        },
        task_id=task.id,
        annotation_id=annotation.id,
        actor=annotation.updated_by or annotation.completed_by,
    )
    return True


def _shown(session: Session, annotation: Annotation) -> dict[str, Any] | None:
    """What the annotator was shown: matched by the prediction's number, never by time; None: nothing."""
    if annotation.parent_prediction is None:
        return None
    row = session.scalars(
        select(Published).where(
            Published.project_id == annotation.project_id,
            Published.prediction_id == annotation.parent_prediction,
        )
    ).first()
    if row is None:
        return {"prediction": annotation.parent_prediction}
    return {
        "prediction": row.prediction_id,
        "version": row.version,
        "kind": row.kind,
        "rank": row.rank,
        "results": row.shown,
    }


def _delete(session: Session, annotation: Annotation, actor: int | None) -> None:
    annotation.deleted_at, annotation.trained_in = time.time(), None
    ledger.append(
        session,
        annotation.project_id,
        "deleted",
        {"from": annotation.labels, "origin": annotation.origin},
        task_id=annotation.task_id,
        annotation_id=annotation.id,
        actor=actor,
    )


def _forget(session: Session, project_id: int, seen: Iterable[int], changes: Changes) -> None:
    """Mark tasks that a full pass did not meet, and their annotations, as deleted."""
    here = set(seen)
    query = select(Task).where(Task.project_id == project_id, Task.deleted_at.is_(None))
    for task in session.scalars(query):
        if task.id in here:
            continue
        task.deleted_at = time.time()
        rows = select(Annotation).where(
            Annotation.project_id == project_id,
            Annotation.task_id == task.id,
            Annotation.deleted_at.is_(None),
        )
        for annotation in session.scalars(rows):
            _delete(session, annotation, None)
            changes.annotations += 1
