"""One page of Label Studio's tasks and annotations into the store, each difference into the ledger.

Label Studio on SQLite gives an imported task or annotation the number after the largest there is, so that a deleted
one's number comes back: an annotation is known by its number and `created_at` together.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session

from tasks import recording
from tasks.codec import Decoded, decode_current, decode_result
from tasks.marks import answers, marking
from tasks.schema import Schema
from tasks.tables import Annotation, Published, Task

Remote = dict[str, Any]
"""A task or annotation as the API shows it."""


@dataclass
class Changes:
    """What a reconcile found."""

    tasks: int = 0
    annotations: int = 0  # created, changed or deleted
    full: bool = False


def apply_page(
    session: Session, project_id: int, schema: Schema, page: list[Remote], changes: Changes, *, first: bool = False
) -> None:
    """Make the store equal to these tasks as Label Studio shows them, and count what differed.

    In a full pass (`changes.full`) annotations are also read again whose times are the same, since the label config
    may say otherwise of them now. In the first pass ever (`first`) what people annotated is older than our connection.
    """
    ids = [row["id"] for row in page]
    there = {remote["id"]: remote for row in page for remote in row.get("annotations", [])}
    tasks = {
        task.id: task for task in session.scalars(select(Task).where(Task.project_id == project_id, Task.id.in_(ids)))
    }
    query = select(Annotation).where(
        Annotation.project_id == project_id, or_(Annotation.task_id.in_(ids), Annotation.id.in_(list(there)))
    )
    known = {annotation.id: annotation for annotation in session.scalars(query)}
    said: dict[int, list[Annotation]] = {task: [] for task in ids}
    for annotation in known.values():
        said.setdefault(annotation.task_id, []).append(annotation)
    recorded = recording.Recorded()
    for row in page:
        task = tasks.get(row["id"])
        if task is None:
            task = Task(project_id=project_id, id=row["id"], group=None, site=None, fold=None, pixels=None)
            session.add(task)
            tasks[task.id] = task
        moved = task.updated_at != utc(row["updated_at"])
        changes.tasks += moved
        before = (task.data, task.current) if task.updated_at is not None and task.deleted_at is None else None
        _apply_task(session, task, row, schema)
        # Of several changes of a task `updated_by` names the last.
        alone = moved and _stored_times(said[task.id]) == _shown_times(row)
        recorded.add(task, before, task.updated_by if alone else None)
        _apply_deletions(session, task, row, there, said[task.id], moved, changes)
    recorded.append(session, project_id)
    for row in page:
        for remote in row.get("annotations", []):
            changed = _apply_annotation(
                session,
                schema,
                tasks[row["id"]],
                known.get(remote["id"]),
                said[row["id"]],
                remote,
                reread=changes.full,
                first=first,
            )
            changes.annotations += changed


def forget(session: Session, project_id: int, seen: Iterable[int], changes: Changes) -> None:
    """Mark tasks that a full pass did not meet, and their annotations, as deleted."""
    here = set(seen)
    query = select(Task).where(Task.project_id == project_id, Task.deleted_at.is_(None)).order_by(Task.id)
    gone = [task for task in session.scalars(query) if task.id not in here]
    for task in gone:
        task.deleted_at, task.overlap_before = time.time(), None
        rows = select(Annotation).where(
            Annotation.project_id == project_id,
            Annotation.task_id == task.id,
            Annotation.deleted_at.is_(None),
        )
        for annotation in session.scalars(rows):
            _delete(session, annotation, None)
            changes.annotations += 1
    recording.removed(session, project_id, [task.id for task in gone])


def exported(schema: Schema, remote: Remote) -> Annotation:
    """An annotation of Label Studio's JSON export, as a reconcile would take it over; it is in no store.

    Raises KeyError, TypeError or ValueError where it is none.
    """
    decoded = decode_result(schema, answers(schema, remote["result"]))
    parent = remote.get("parent_prediction")
    return Annotation(
        id=remote["id"],
        completed_by=_person(remote.get("completed_by")),
        updated_at=utc(remote["updated_at"]),
        parent_prediction=parent,
        result=remote["result"],
        labels={head: list(names) for head, names in decoded.labels.items()},
        flagged=decoded.flagged,
        confidence=decoded.confidence,
        origin=_origin(remote, decoded, bool(marking(schema, remote["result"])), parent),
    )


def utc(moment: str) -> str:
    """Label Studio's time in one form, so that times compare as text."""
    return datetime.fromisoformat(moment).astimezone(UTC).isoformat(timespec="microseconds")


def _apply_task(session: Session, task: Task, row: Remote, schema: Schema) -> None:
    labels, problems = decode_current(schema, row["data"])
    image = str(row["data"].get(schema.image_field) or "")
    reborn = task.deleted_at is not None  # a new task under a deleted one's number
    other_image = reborn or (task.image is not None and task.image != image)
    if other_image:
        task.pixels = task.image_error = None  # read it anew
    if reborn:
        session.execute(delete(Published).where(Published.project_id == task.project_id, Published.task_id == task.id))
    task.data, task.image = row["data"], image
    task.current, task.problems = labels, list(problems)
    task.site = _text(row["data"], schema.site_field)
    group = _text(row["data"], schema.group_field)
    if group is not None and group != task.group:
        task.group, task.fold = group, None  # another patient: the fold must be that patient's
    elif group is None and other_image:
        task.group = task.fold = None  # its group was the image's own bytes
    task.is_labeled = bool(row["is_labeled"])
    task.annotations, task.cancelled = row["total_annotations"], row["cancelled_annotations"]
    task.updated_at, task.updated_by = utc(row["updated_at"]), _person(row.get("updated_by"))
    task.deleted_at = None


def _text(data: Mapping[str, Any], field: str | None) -> str | None:
    value = data.get(field) if field is not None else None
    return None if value in (None, "") else str(value)


def _person(value: Any) -> int | None:
    """A user's number, however this call writes it: a number, an object, or a list of objects."""
    if isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, dict):
        value = value.get("id", value.get("user_id"))
    return value if isinstance(value, int) else None


def _same(annotation: Annotation, remote: Remote | None) -> bool:
    return remote is not None and annotation.created_at == utc(remote["created_at"])


def _stored_times(said: Iterable[Annotation]) -> set[tuple[int, str, str]]:
    return {(row.id, row.created_at, row.updated_at) for row in said if row.deleted_at is None}


def _shown_times(row: Remote) -> set[tuple[int, str, str]]:
    remotes = row.get("annotations", [])
    return {(remote["id"], utc(remote["created_at"]), utc(remote["updated_at"])) for remote in remotes}


def _apply_deletions(
    session: Session,
    task: Task,
    row: Remote,
    there: Mapping[int, Remote],
    said: Iterable[Annotation],
    moved: bool,
    changes: Changes,
) -> None:
    """Mark the task's annotations as deleted that Label Studio has no more.

    Only `task.updated_by` names who did it, and of several changes of a task it names the last: when an annotation of
    the task changed as well, nobody can tell.
    """
    before = [annotation for annotation in said if annotation.deleted_at is None]
    gone = [annotation for annotation in before if not _same(annotation, there.get(annotation.id))]
    others = bool(_shown_times(row) - _stored_times(before))
    for annotation in gone:
        # A bulk deletion names its user only after the annotations are gone and the webhooks answered: wait for it.
        if moved or changes.full or annotation.id in there:
            _delete(session, annotation, task.updated_by if moved and not others else None)
            changes.annotations += 1


def _apply_annotation(
    session: Session,
    schema: Schema,
    task: Task,
    known: Annotation | None,
    said: list[Annotation],
    remote: Remote,
    *,
    reread: bool,
    first: bool,
) -> bool:
    """Take one annotation over; says whether anything of it was new.

    known: the annotation of that number, if there was one. said: all of the task; a new one is added.
    """
    same = known is not None and known.deleted_at is None and _same(known, remote)
    if known is not None and known.deleted_at is None and not same:
        _delete(session, known, None)  # its task is on another page
    annotation = known if known is not None else Annotation(project_id=task.project_id, id=remote["id"])
    untouched = same and annotation.updated_at == utc(remote["updated_at"]) and annotation.task_id == task.id
    if untouched and not reread:
        return False
    decoded = decode_result(schema, answers(schema, remote["result"]))
    marked = marking(schema, remote["result"])
    labels: dict[str, Any] = {head: list(names) for head, names in decoded.labels.items()}
    parent = remote.get("parent_prediction")
    if parent is None and same:
        parent = annotation.parent_prediction  # deleting a version empties it in Label Studio
    origin = _origin(remote, decoded, bool(marked), parent)
    if origin == "person" and (first or (untouched and annotation.origin == "earlier")):
        origin = "earlier"
    before = annotation.labels if same else None
    means_the_same = same and (before, annotation.flagged, annotation.origin) == (labels, decoded.flagged, origin)
    means_the_same = means_the_same and (untouched or marking(schema, annotation.result) == marked)
    if untouched and means_the_same:
        return False
    held = recording.held(task, [row for row in said if row.task_id == task.id])
    if known is None:
        session.add(annotation)
    if all(row is not annotation for row in said):
        said.append(annotation)
    annotation.task_id, annotation.origin, annotation.parent_prediction = task.id, origin, parent
    annotation.completed_by = _person(remote.get("completed_by"))
    annotation.updated_by = _person(remote.get("updated_by"))
    annotation.created_at, annotation.updated_at = utc(remote["created_at"]), utc(remote["updated_at"])
    annotation.lead_time, annotation.was_cancelled = remote.get("lead_time"), remote["was_cancelled"]
    annotation.result, annotation.labels = remote["result"], labels
    annotation.flagged, annotation.confidence = decoded.flagged, decoded.confidence
    annotation.deleted_at = None
    if not means_the_same:
        annotation.trained_in = None
    recording.annotated(
        session,
        schema,
        annotation,
        before or recording.plain(held),  # an annotation that said nothing, such as a skip, changed what held
        event="changed" if same else "created",
        decoded=decoded,
        reread=untouched,
    )
    return True


def _origin(remote: Remote, decoded: Decoded, marked: bool, parent: int | None) -> str:
    """Who made it: only what a person submitted counts, and only since the project was connected.

    marked: it marks something in the image, or says what was reviewed, which marks the rest as background.
    Bulk creation leaves `updated_by` empty: with a prediction as parent it is "Create annotations from
    predictions", signed with the clicker's name; without, an import.
    """
    if remote["was_cancelled"]:
        return "skipped"
    if not decoded.labels and not decoded.flagged and not marked:
        return "empty"  # also where only our own text and rectangles were submitted
    if _person(remote.get("updated_by")) is not None:
        return "person"
    return "imported" if parent is None else "machine"


def _delete(session: Session, annotation: Annotation, actor: int | None) -> None:
    annotation.deleted_at, annotation.trained_in = time.time(), None
    recording.deleted(session, annotation, actor)
