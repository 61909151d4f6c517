"""Reading the audit trail: the label set of any moment, and who did what to which task, as rows for a person."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from tasks.labels import Settled, by_task, settle
from tasks.ledger import canonical
from tasks.marks import holding, marking, short
from tasks.schema import Labels, Schema, SchemaError, parse_label_config
from tasks.tables import Annotation, Entry, Project, Task

COLUMNS = (
    *("entry", "at", "event", "action", "task", "annotation", "actor", "annotator", "from", "to", "flagged"),
    *("confidence", "lead_time", "shown", "shown_version", "shown_model", "shown_kind", "because", "details", "hash"),
)
TASK_EVENTS = ("recorded", "removed", "reopened", "imported-csv")
"""Events that name several tasks in one entry."""
OUR_EVENTS = ("reopened", "renewed", "referred", "returned")
"""What Second Look did to a task by itself."""


class LabelSet:
    """The labels of a project's tasks at one moment: those on record, and what annotations say.

    label_config: by which annotations are read; "": not known, and nothing is known of masks.
    """

    def __init__(self) -> None:
        self.label_config = ""
        self.recorded: dict[int, Labels] = {}
        self.annotations: dict[int, Annotation] = {}

    def apply(self, entry: Entry) -> None:
        """Go on by one entry of the ledger."""
        body = entry.body
        if entry.event == "configured":
            self.label_config = body["label_config"]
        elif entry.event == "recorded":
            self.recorded |= {int(task): labels for task, labels in body["to"].items()}
        elif entry.event == "removed":
            for task in body["tasks"]:
                self.recorded.pop(task, None)
        elif entry.event == "deleted" and entry.annotation_id is not None:
            self.annotations.pop(entry.annotation_id, None)
        elif entry.event in ("created", "changed") and entry.annotation_id is not None:
            self.annotations[entry.annotation_id] = Annotation(
                project_id=entry.project_id,
                id=entry.annotation_id,
                task_id=entry.task_id,
                completed_by=body["annotator"],
                updated_at=body["changed_at"],
                lead_time=body["lead_time"],
                parent_prediction=(body["shown"] or {}).get("prediction"),
                result=body.get("marks"),
                labels=body["to"],
                flagged=body["flagged"],
                confidence=body["confidence"],
                origin=body["origin"],
            )

    def settled(self) -> Iterator[tuple[int, Settled]]:
        """What holds on each task, by number."""
        said = by_task(self.annotations.values())
        for task in sorted(self.recorded):
            yield task, settle(said.get(task, []), self.recorded[task])

    def marked(self) -> dict[int, list[dict[str, Any]]]:
        """Of each task that has any, the annotations that paint its masks, in order, each with its results as it is.

        `marks.paint` makes the masks of them.
        """
        schema = _read(self.label_config)
        if schema is None or not schema.masks:
            return {}
        painting = {
            task: [
                {"annotation": row.id, "results": marking(schema, row.result)} for row in holding(schema, annotations)
            ]
            for task, annotations in by_task(self.annotations.values()).items()
            if task in self.recorded
        }
        return {task: marks for task, marks in painting.items() if marks}

    def lines(self) -> Iterator[str]:
        """One line of canonical JSON a task, ending in a newline: equal label sets are equal byte for byte.

        task; labels: what holds, per head (empty while flagged); adjudicated: the heads that people decided; flagged;
        marks: as `marked`, where there are any.
        """
        marked = self.marked()
        for task, row in self.settled():
            line: dict[str, Any] = {
                "task": task,
                "labels": row.labels,
                "adjudicated": sorted(row.adjudicated),
                "flagged": row.flagged,
            }
            if task in marked:
                line["marks"] = marked[task]
            yield canonical(line) + "\n"


def _read(label_config: str) -> Schema | None:
    try:
        return parse_label_config(label_config)
    except SchemaError:
        return None


def moment(text: str) -> str:
    """A time in the form that the ledger's times have, so that they compare as text.

    `text`: ISO 8601, in this machine's zone where it names none, or "now". Raises ValueError for anything else.
    """
    try:
        time = datetime.now(UTC) if text == "now" else datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no time: write it as 2026-01-31T14:00 or 2026-01-31T14:00:00+00:00") from error
    return time.astimezone(UTC).isoformat(timespec="microseconds")


def replay(entries: Iterable[Entry], at: str | None = None) -> LabelSet:
    """The label set that the entries up to and including a time (as `moment` gives it) make; None: all of them."""
    found = LabelSet()
    for entry in entries:
        if at is not None and entry.at > at:
            break
        found.apply(entry)
    return found


def stored(session: Session, project_id: int) -> LabelSet:
    """The label set as the store has it now."""
    found = LabelSet()
    found.label_config = session.get_one(Project, project_id).label_config
    tasks = select(Task.id, Task.current).where(Task.project_id == project_id, Task.deleted_at.is_(None))
    found.recorded = {row.id: row.current for row in session.execute(tasks)}
    rows = select(Annotation).where(Annotation.project_id == project_id, Annotation.deleted_at.is_(None))
    found.annotations = {row.id: row for row in session.scalars(rows)}
    return found


def differences(ledger: LabelSet, store: LabelSet) -> list[str]:
    """A sentence for each task whose labels or masks in the store are not those of the ledger.

    Masks of annotations that were written before the ledger kept them are taken as they are.
    """
    theirs, ours = dict(ledger.settled()), dict(store.settled())
    store.label_config = ledger.label_config  # a new one, which the next reconcile writes, may read masks anew
    unknown = {row.task_id for row in ledger.annotations.values() if row.result is None}
    drawn, stored = ledger.marked(), store.marked()
    found = []
    for task in sorted(theirs.keys() | ours.keys()):
        if theirs.get(task) != ours.get(task):
            there, here = (_holds(rows.get(task)) for rows in (theirs, ours))
            found.append(f"task {task}: the store holds {here}, the ledger {there}")
        elif task not in unknown and drawn.get(task) != stored.get(task):
            found.append(f"task {task}: the store holds other masks than the ledger")
    return found


def _holds(row: Settled | None) -> str:
    if row is None:
        return "no such task"
    return "a flag for the expert" if row.flagged else spoken(row.labels) or "no label"


def spoken(labels: Mapping[str, Sequence[str]] | None) -> str:
    """Labels for people: "bom: malignant; foci: none|rim"."""
    return "; ".join(f"{head}: {'|'.join(names) or '-'}" for head, names in sorted((labels or {}).items()))


def suggestion(shown: Mapping[str, Any] | None) -> str:
    """What the model showed, for people: the ticked answers with its confidence in them, and how many regions."""
    if shown is None:
        return "nothing"
    if "results" not in shown:
        return f"prediction {shown['prediction']}, which was none of a published order"
    regions = [result for result in shown["results"] if result["type"] != "choices"]
    answers = [f"{name}: {', '.join(parts)}" for name, parts in short(regions).items()]
    for result in shown["results"]:
        value = result["value"]
        names = value.get("choices") or ([value["rating"]] if "rating" in value else [])
        if names:
            sure = f" {result['score']:.0%}" if "score" in result else ""
            answers.append(f"{result['from_name']}: {'|'.join(map(str, names))}{sure}")
    return "; ".join(sorted(answers)) or "no suggestion"


def rows(entry: Entry) -> Iterator[dict[str, Any]]:
    """An entry as rows with COLUMNS: one, or where it names several tasks one for each."""
    body = entry.body
    row: dict[str, Any] = dict.fromkeys(COLUMNS) | {
        "entry": entry.seq,
        "at": entry.at,
        "event": entry.event,
        "action": body.get("action"),
        "task": entry.task_id,
        "annotation": entry.annotation_id,
        "actor": entry.actor,
        "because": body.get("because"),
        "hash": entry.hash,
    }
    if entry.event == "recorded":
        for task, labels in body["to"].items():
            before = body["from"].get(task)
            action = "imported" if before is None else "recorded"
            about = {"task": int(task), "action": action, "actor": body["by"].get(task)}
            yield row | about | {"from": before, "to": labels}
    elif entry.event in TASK_EVENTS:
        for task in body["tasks"]:
            yield row | {"task": task, "action": entry.event}
    elif entry.event in ("created", "changed"):
        shown = body["shown"]
        same = ("from", "to", "flagged", "confidence", "lead_time", "annotator")
        said = {"to": short(body.get("marks", [])) | body["to"], "details": "; ".join(body["problems"])}
        yield row | {name: body[name] for name in same} | _shown(shown) | said
    elif entry.event == "deleted":
        yield row | {"from": body["from"]}
    elif entry.event == "renewed":  # its image changed while it waited
        yield row | _shown({"version": body["version"], "results": body["to"]}) | {"details": canonical(body)}
    else:
        yield row | {"details": canonical(body)}


def _shown(shown: Mapping[str, Any] | None) -> dict[str, Any]:
    about = shown or {}
    return {
        "shown": suggestion(shown),
        "shown_version": about.get("version"),
        "shown_model": about.get("model"),
        "shown_kind": about.get("kind"),
    }


def cells(row: Mapping[str, Any]) -> list[str]:
    """A row as the cells of a table file, labels as people write them."""
    texts = {name: "" if row[name] is None else str(row[name]) for name in COLUMNS}
    return [spoken(row[name]) if name in ("from", "to") else texts[name] for name in COLUMNS]


def verbatim(entry: Entry) -> dict[str, Any]:
    """An entry with all that its hash covers: previous, project_id, at, event, task_id, annotation_id, actor, body."""
    return {column.key: getattr(entry, column.key) for column in Entry.__table__.columns}
