"""Batch review without the screen: what goes into a review file, and its decisions as annotations in Label Studio."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.learning.folds import HOLDOUT
from backend.registry import Registry
from backend.scored import Scored, of_version
from backend.settings import Settings
from tasks import exchange, ledger, sync
from tasks.client import Client
from tasks.codec import confidence_in, encode_labels, ticked, to_targets
from tasks.exchange import Answer, Known, Suspect
from tasks.labels import Settled, by_task, settle
from tasks.marks import marking
from tasks.present import phrases_of
from tasks.ranking.hybrid import weights_of
from tasks.ranking.suspects import suspicion
from tasks.recording import held
from tasks.schema import Head, Labels, Schema, parse_label_config
from tasks.store import Store, lock_project
from tasks.tables import Annotation, Entry, Project, Published, Task
from tasks.why import why

EVENT = "imported-csv"


@dataclass(frozen=True)
class Export:
    """The suspects, first first, under these heads, by this version; how many tasks are kept out of the file."""

    heads: tuple[Head, ...]
    rows: tuple[Suspect, ...]
    version: int
    withheld: int


def suspects(store: Store, registry: Registry, settings: Settings, project_id: int, top: int | None) -> Export | None:
    """The scored tasks by suspicion; None before any model.

    Suspicion is the probability that the label on record does not hold (`tasks.ranking.suspects`); what a person
    decided is beyond it. In order: the sum over heads by weight, then uncertainty. The hold-out, and what waits in
    the queue as drawn at random, are kept out: honest figures need that they are answered unseen.
    """
    project = store.project(project_id)
    if project is None or project.version is None:
        return None
    schema, settings = parse_label_config(project.label_config), settings.tuned(project.extra_params)
    folder = registry.version(project_id, project.version)
    scored = of_version(folder).under(schema.heads)
    with store.snapshot() as session:
        tasks = _tasks(session, project_id)
        said = _said(session, project_id)
        query = select(Published).where(
            Published.project_id == project_id, Published.version == session.get_one(Project, project_id).published
        )
        waiting = {row.task_id: row for row in session.scalars(query) if row.task_id in tasks}
    settled = {number: settle(said.get(number, []), task.current) for number, task in tasks.items()}
    looked_at = (folder / "backbones.json").exists()  # imported probabilities know no images
    known = scored.still({number: task.pixels if looked_at else "" for number, task in tasks.items()})
    waiting = {number: row for number, row in waiting.items() if not settled[number].adjudicated}
    drawn = {number for number, row in waiting.items() if row.kind != "ranked"}
    ids = [task for task in known if tasks[task].fold != HOLDOUT and task not in drawn]
    learnt = _learnt(schema, scored)
    doubts, order = _doubts(learnt, scored, ids, settled)

    phrases = phrases_of(settings.phrases)
    recorded = sum(bool(settled[task].current) for task in ids)
    weights = weights_of(settings.preset, recorded=2 * recorded > len(ids))
    rows = []
    for place in order[:top]:
        task = ids[int(place)]
        said_now, probabilities = settled[task], scored.of(task) or {}
        prediction = {head.name: ticked(head, probabilities[head.name]) for head in learnt}
        if task in waiting:
            reason = waiting[task].why
        elif scored.scores is None:
            reason = why(schema, {}, said_now.current, "abstain", "diversity", (), phrases)
        else:
            because = scored.reason(task, weights, 0.0, schema.heads, said_now.current)
            reason = why(schema, probabilities, said_now.current, "ranked", because, (), phrases)
        rows.append(
            Suspect(
                task=task,
                image=tasks[task].image,
                current=held(tasks[task], said.get(task, [])),
                prediction=prediction,
                confidence={
                    head.name: confidence_in(head, probabilities[head.name], prediction[head.name]) for head in learnt
                },
                suspicion={name: float(doubt[place]) for name, doubt in doubts.items() if not np.isnan(doubt[place])},
                reason=reason.replace("\n", " "),
            )
        )
    return Export(schema.heads, tuple(rows), project.version, len(known) - len(ids))


def _learnt(schema: Schema, scored: Scored) -> list[Head]:
    return [head for head in schema.heads if head.name in scored.probabilities]


def _doubts(
    learnt: Sequence[Head], scored: Scored, ids: Sequence[int], settled: dict[int, Settled]
) -> tuple[dict[str, Any], Any]:
    """Suspicion (N,) per learnt head of these tasks, NaN where there is none; and their order, as places in ids."""
    rows = np.array([scored.row_of[task] for task in ids], dtype=np.intp)
    doubts, total, any_known = {}, np.zeros(len(ids)), np.zeros(len(ids), dtype=bool)
    for head in learnt:
        open_ = [_to_check(head, settled[task]) for task in ids]
        doubt = suspicion(scored.probabilities[head.name][rows], to_targets([head], open_)[head.name], head)
        doubts[head.name] = doubt
        total += head.weight * np.nan_to_num(doubt)
        any_known |= ~np.isnan(doubt)
    unsure = np.zeros(len(ids)) if scored.scores is None else scored.scores.uncertainty[rows]
    return doubts, np.lexsort((np.array(ids), -unsure, -total, ~any_known))


def _to_check(head: Head, settled: Settled) -> Labels:
    """The label on record, unless a person has decided, or the present label config does not know it."""
    said = settled.current.get(head.name)
    if said is None or head.name in settled.adjudicated or not set(said) <= set(head.classes):
        return {}
    return {head.name: said}


def bring_in(
    store: Store,
    client: Client,
    project_id: int,
    raw: bytes,
    name: str,
    *,
    dry_run: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Apply a review file in the project's turn: every decision as an annotation by the token's user, or none.

    Returns rows, decided, applied, as_they_were (decisions that the user's last word contained), gone (tasks that were
    deleted meanwhile), columns_left_alone, sha256 and imported_before (when this very file was, by the ledger).
    Cut off anywhere, the same file goes on where it stopped. Raises BadReview before anything is applied, and what
    Label Studio's calls raise; what was applied until then is in the ledger.
    """
    with store.turn(project_id):
        sync.reconcile(store, client, project_id)
        user = int(client.user()["id"])
        project = store.project(project_id)
        assert project is not None  # it was just reconciled
        schema = parse_label_config(project.label_config)
        sheet = exchange.read(raw, schema)
        with store.begin() as session:
            imports = _imports(session, project_id)
            known = _known(session, schema, project_id, user)
        before = next((entry.at for entry in imports if entry.body["sha256"] == sheet.sha256), None)
        about: dict[str, Any] = {
            "file": name,
            "project": project_id,
            "sha256": sheet.sha256,
            "rows": sheet.rows,
            "decided": len(sheet.decisions),
            "columns_left_alone": list(sheet.left_alone),
            "imported_before": before,
        }
        if before is not None:
            return about | {"applied": 0, "as_they_were": len(sheet.decisions), "gone": []}
        found = exchange.answers(sheet, schema, known)
        fresh = sum(answer.annotation is None for answer in found)
        about["as_they_were"] = len(found) - fresh
        if dry_run:
            return about | {"applied": 0, "to_apply": fresh, "gone": []}
        rows, gone = _apply(store, client, project_id, schema, found, progress)
        with store.begin() as session:
            lock_project(session, project_id)
            named = {row["annotation"] for entry in imports for row in entry.body["rows"]}
            if any(row["annotation"] not in named for row in rows):
                body = {"file": name, "sha256": sheet.sha256, "tasks": [row["task"] for row in rows], "rows": rows}
                ledger.append(session, project_id, EVENT, body | {"because": name}, actor=user)
        return about | {"applied": fresh - len(gone), "gone": gone}


def _apply(
    store: Store,
    client: Client,
    project_id: int,
    schema: Schema,
    found: Sequence[Answer],
    progress: Callable[[int, int], None],
) -> tuple[list[dict[str, Any]], list[int]]:
    """Make the annotations that are not there yet, and read them back into the store and the ledger.

    Returns for each decision its task, annotation, line and what the file showed of the model; and the tasks that were
    deleted in the meantime.
    """
    rows: list[dict[str, Any]] = []
    gone: list[int] = []
    try:
        for done, answer in enumerate(found):
            progress(done, len(found))
            task, number = answer.decision.task, answer.annotation
            if number is None:
                number = client.add_annotation(task, [*encode_labels(schema, answer.labels), *answer.marks])
            if number is None:
                gone.append(task)
                continue
            shown = dict(answer.decision.shown)
            rows.append({"task": task, "annotation": number, "line": answer.decision.line, "shown": shown})
        progress(len(found), len(found))
    finally:
        if any(answer.annotation is None for answer in found):
            sync.reconcile(store, client, project_id)
    return rows, gone


def _imports(session: Session, project_id: int) -> Sequence[Entry]:
    """The entries of review files that were imported, newest first."""
    query = select(Entry).where(Entry.project_id == project_id, Entry.event == EVENT)
    return session.scalars(query.order_by(Entry.seq.desc())).all()


def _known(session: Session, schema: Schema, project_id: int, user: int) -> dict[int, Known]:
    """What holds of every task there is or was, and the last word of that user."""
    said = _said(session, project_id)
    found = {}
    for number, task in _tasks(session, project_id, deleted=True).items():
        here = said.get(number, [])
        mine = [row for row in here if row.origin == "person" and row.completed_by == user]
        last = max(mine, key=lambda row: (row.updated_at, row.id), default=None)
        own: Labels = {} if last is None else {name: tuple(labels) for name, labels in last.labels.items()}
        marks = [] if last is None else marking(schema, last.result)
        # A flag asks an expert: only a word without one leaves nothing to decide.
        done = last.id if last is not None and not last.flagged else None
        found[number] = Known(task.deleted_at is not None, held(task, here), own, done, marks)
    return found


def _tasks(session: Session, project_id: int, *, deleted: bool = False) -> dict[int, Task]:
    query = select(Task).where(Task.project_id == project_id)
    if not deleted:
        query = query.where(Task.deleted_at.is_(None))
    return {task.id: task for task in session.scalars(query)}


def _said(session: Session, project_id: int) -> dict[int, list[Annotation]]:
    query = select(Annotation).where(Annotation.project_id == project_id, Annotation.deleted_at.is_(None))
    return by_task(session.scalars(query))
