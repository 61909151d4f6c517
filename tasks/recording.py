"""What a reconcile writes into the ledger: each event with all that is needed to rebuild the labels of any moment."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from tasks import ledger
from tasks.codec import Decoded, Result
from tasks.labels import settle
from tasks.marks import verdict
from tasks.schema import Labels, Schema
from tasks.tables import Annotation, Entry, Published, Task

MODEL_EVENTS = ("trained", "imported", "promoted")
"""Events by which a version comes: by a training, from probabilities made elsewhere, or as an admin put it in force."""
CONFIG_CHANGED = "the label config changed"


class Recorded:
    """Labels on record that came, or changed, with one page of tasks: one entry, or an import would make thousands."""

    def __init__(self) -> None:
        self._bodies: dict[str | None, dict[str, dict[int, Any]]] = {}

    def add(self, task: Task, before: tuple[Mapping[str, Any], Labels] | None, by: int | None) -> None:
        """Note the task's labels on record, if they are new.

        before: its data and labels on record until now; None for a new task. by: who changed it, where known.
        """
        if before is not None and plain(before[1]) == plain(task.current):
            return
        because = CONFIG_CHANGED if before is not None and before[0] == task.data else None
        body = self._bodies.setdefault(because, {"to": {}, "from": {}, "by": {}})
        body["to"][task.id] = task.current
        if before is not None:
            body["from"][task.id] = before[1]
            if by is not None and because is None:
                body["by"][task.id] = by

    def append(self, session: Session, project_id: int) -> None:
        """Write what was noted."""
        for because, body in self._bodies.items():
            reason = {} if because is None else {"because": because}
            ledger.append(session, project_id, "recorded", body | reason)


def plain(labels: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Labels as JSON has them, so that those just decoded compare with those read back."""
    return {head: list(names) for head, names in labels.items()}


def configured(session: Session, project_id: int, label_config: str) -> None:
    """Write the label config by which labels are read from here on, unless it is the one written last."""
    query = select(Entry).where(Entry.project_id == project_id, Entry.event == "configured")
    last = session.scalars(query.order_by(Entry.seq.desc()).limit(1)).first()
    if last is None or last.body["label_config"] != label_config:
        ledger.append(session, project_id, "configured", {"label_config": label_config})


def held(task: Task, annotations: Iterable[Annotation]) -> Labels:
    """The labels that hold on a task: settled, or where it waits for an expert, those on record."""
    settled = settle(annotations, task.current)
    return settled.current if settled.flagged else settled.labels


def annotated(
    session: Session,
    schema: Schema,
    annotation: Annotation,
    before: Mapping[str, Sequence[str]],
    *,
    event: str,
    decoded: Decoded,
    reread: bool,
) -> None:
    """Write that an annotation was `created` or `changed`.

    before: what it said, or for a new one what held on its task. decoded: its results. reread: nobody touched it, the
    label config did.
    """
    shown = _shown(session, annotation, decoded.shown)
    masks = None if reread else verdict(schema, annotation.result, (shown or {}).get("results", ()))
    body = {
        "action": "reread"
        if reread
        else ledger.action(annotation.origin, annotation.flagged, before, annotation.labels, masks),
        "from": before,
        "to": annotation.labels,
        "origin": annotation.origin,
        "flagged": annotation.flagged,
        "confidence": annotation.confidence,
        "lead_time": annotation.lead_time,
        "annotator": annotation.completed_by,
        "changed_at": annotation.updated_at,
        "shown": shown,
        "problems": list(decoded.problems),
    }
    if schema.masks:
        body["marks"] = _marks(schema, annotation.result)
    if reread:
        body["because"] = CONFIG_CHANGED
    ledger.append(
        session,
        annotation.project_id,
        event,
        body,
        task_id=annotation.task_id,
        annotation_id=annotation.id,
        actor=None if reread else annotation.updated_by or annotation.completed_by,
    )


def _marks(schema: Schema, result: object) -> list[Result]:
    """The results that labels, flag and texts do not say, as they are: regions, rectangles, what was reviewed.

    Those of controls that are left alone too: a control may be given a role later, and the annotation stays as it is.
    """
    said = [head.name for head in schema.heads]
    said += [role.name for name, role in schema.roles.items() if name not in ("look", "scope")]
    items = result if isinstance(result, list) else []
    return [item for item in items if isinstance(item, dict) and item.get("from_name") not in said]


def deleted(session: Session, annotation: Annotation, actor: int | None) -> None:
    """Write that an annotation was deleted."""
    ledger.append(
        session,
        annotation.project_id,
        "deleted",
        {"action": "deleted", "from": annotation.labels, "origin": annotation.origin},
        task_id=annotation.task_id,
        annotation_id=annotation.id,
        actor=actor,
    )


def removed(session: Session, project_id: int, tasks: Sequence[int]) -> None:
    """Write that tasks are gone from Label Studio; nothing there names who deleted them."""
    if tasks:
        ledger.append(session, project_id, "removed", {"tasks": list(tasks)})


def _shown(session: Session, annotation: Annotation, read: str) -> dict[str, Any] | None:
    """What the annotator was shown: matched by the prediction's number, never by time; None: nothing.

    read: the `why` text that was submitted with the annotation. A prediction that was shown anew meanwhile is kept as
    it was when it had that text. model: sha256 of the version's model.json, which holds its calibration.
    """
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
    trained = select(Entry.body).where(
        Entry.project_id == annotation.project_id,
        Entry.event.in_(MODEL_EVENTS),
        Entry.body["version"].as_integer() == row.version,
    )
    about = session.scalars(trained.order_by(Entry.seq.desc()).limit(1)).first() or {}
    return {
        "prediction": row.prediction_id,
        "version": row.version,
        "model": about.get("model"),
        "kind": row.kind,
        "rank": row.rank,
        "results": _as_read(session, row, read),
    }


def _as_read(session: Session, row: Published, read: str) -> list[Any]:
    if not read or _why(row.shown) == read:
        return row.shown
    query = select(Entry).where(
        Entry.project_id == row.project_id, Entry.event == "renewed", Entry.task_id == row.task_id
    )
    for entry in session.scalars(query.order_by(Entry.seq.desc())):
        if entry.body["prediction"] == row.prediction_id and _why(entry.body["from"]) == read:
            earlier: list[Any] = entry.body["from"]
            return earlier
    return row.shown


def _why(results: Sequence[Mapping[str, Any]]) -> str:
    texts = [text for result in results if result["type"] == "textarea" for text in result["value"]["text"]]
    return "\n".join(texts)
