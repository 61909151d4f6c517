"""Labelled tasks held open for review: those of the published order only, closed again when they leave it.

Label Studio never serves a labelled task, whatever its score. What is to be opened is in the store before Label Studio
is told (`Task.overlap_before`), so whatever a kill leaves open is known and closed by the next look. Annotations are
never touched: only the task's `overlap` and `is_labeled` are. All but the conditions only in the project's turn.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import structlog
from sqlalchemy import ColumnElement, Select, and_, or_, select
from sqlalchemy.orm import Session

from tasks import ledger
from tasks.client import PAGE, Client
from tasks.referred import with_expert
from tasks.store import Store
from tasks.tables import Annotation, Job, Project, Published, Task

log = structlog.get_logger()

Remote = dict[str, Any]


def reviewed(project_id: int) -> Select[int]:
    """Tasks that a person answered since the project was connected; an empty answer is one too, as it always was."""
    return select(Annotation.task_id).where(
        Annotation.project_id == project_id,
        Annotation.origin.in_(["person", "empty"]),
        Annotation.deleted_at.is_(None),
    )


def to_review(project_id: int) -> tuple[ColumnElement[bool], ...]:
    """Conditions on Task: it carries annotations, but none that a person made since the project was connected."""
    return Task.annotations > 0, Task.id.not_in(reviewed(project_id))


def reopen(
    store: Store,
    client: Client,
    project_id: int,
    version: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Open what is labelled and to be reviewed of a version's pushed order, first first; returns how many.

    Six to eight a second, also with several threads: Label Studio works them off one after the other.
    """
    # One click makes annotations from predictions, and each takes a place: their tasks are looked at again every time.
    machine = select(Annotation.task_id).where(
        Annotation.project_id == project_id, Annotation.origin == "machine", Annotation.deleted_at.is_(None)
    )
    with store.begin() as session:
        query = (
            select(Task.id)
            .join(Published, (Published.project_id == Task.project_id) & (Published.task_id == Task.id))
            .where(
                Published.project_id == project_id,
                Published.version == version,
                Published.prediction_id > 0,  # seen in Label Studio: without it the task would be served at random
                Task.deleted_at.is_(None),
                or_(Task.is_labeled.is_(True), and_(Task.overlap_before.is_not(None), Task.id.in_(machine))),
                *to_review(project_id),
            )
            .order_by(Published.rank)
        )
        wanted = session.scalars(query).all()
    if not wanted:
        return 0
    mode, opened, done = client.project(project_id)["skip_queue"], 0, 0
    for page in pages(client, project_id, wanted):
        with store.begin() as session:
            page = _hold(session, project_id, version, page, mode)
        for remote in page:
            places = _places(remote, mode)
            if remote["is_labeled"] or remote["overlap"] <= places:
                client.update_task(remote["id"], overlap=places + 1, is_labeled=False)
                opened += 1
            with store.begin() as session:
                # At once, so that the next reconcile finds nothing amiss.
                session.get_one(Task, (project_id, remote["id"])).is_labeled = False
            done += 1
            progress(done, len(wanted))
    if opened:
        log.info("reopened labelled tasks for review", project=project_id, version=version, tasks=opened)
    return opened


def close(store: Store, client: Client, project_id: int) -> int:
    """Close what is held open and should not be; returns how many.

    A submit that is still under way on a closed task arrives and counts all the same.
    """
    return _close(store, client, project_id, to_close(store, project_id))


def close_all(store: Store, client: Client, project_id: int) -> int:
    """Close every task of the project that we hold open; returns how many."""
    with store.begin() as session:
        held = _held(session, project_id)
    return _close(store, client, project_id, held)


def to_close(store: Store, project_id: int) -> dict[int, int]:
    """What is held open and was reviewed, or is in no order that is published or about to be; with the overlap to
    give back. What is with the expert stays.
    """
    publishing = select(Job.version).where(
        Job.project_id == project_id, Job.state.in_(["queued", "running"]), Job.version.is_not(None)
    )
    published = select(Project.published).where(Project.id == project_id, Project.published.is_not(None))
    kept = select(Published.task_id).where(
        Published.project_id == project_id,
        or_(Published.version.in_(published), Published.version.in_(publishing)),
    )
    left = or_(Task.id.not_in(kept), Task.id.in_(reviewed(project_id)), Task.annotations == 0)
    with store.begin() as session:
        return _held(session, project_id, left, Task.id.not_in(with_expert(project_id)))


def _held(session: Session, project_id: int, *conditions: ColumnElement[bool]) -> dict[int, int]:
    rows = session.execute(
        select(Task.id, Task.overlap_before).where(
            Task.project_id == project_id, Task.deleted_at.is_(None), Task.overlap_before.is_not(None), *conditions
        )
    )
    return {row.id: row.overlap_before for row in rows}


def _close(store: Store, client: Client, project_id: int, before: dict[int, int]) -> int:
    if not before:
        return 0
    mode, closed = client.project(project_id)["skip_queue"], 0
    for page in pages(client, project_id, list(before)):
        for remote in page:
            # Less than what we hold it open by: somebody changed the project's overlap, and with it all tasks'.
            overlap = min(remote["overlap"], before[remote["id"]])
            wanted = {"overlap": overlap, "is_labeled": is_done(remote, overlap, mode)}
            if any(remote[field] != value for field, value in wanted.items()):
                client.update_task(remote["id"], **wanted)
            with store.begin() as session:
                task = session.get_one(Task, (project_id, remote["id"]))
                task.is_labeled, task.overlap_before = wanted["is_labeled"], None
            closed += 1
    if closed:
        log.info("closed tasks that were reopened", project=project_id, tasks=closed)
    return closed


def pages(client: Client, project_id: int, tasks: Sequence[int]) -> Iterator[list[Remote]]:
    """Those of the tasks that Label Studio still has, in their order."""
    for start in range(0, len(tasks), PAGE):
        chosen = tasks[start : start + PAGE]
        there = {row["id"]: row for page in client.tasks_by_id(project_id, chosen) for row in page}
        yield [there[task] for task in chosen if task in there]


def _hold(session: Session, project_id: int, version: int, page: list[Remote], mode: str) -> list[Remote]:
    """Remember what to give back before anything is opened; returns the tasks that are ours to open."""
    ours, new = [], []
    for remote in page:
        task = session.get_one(Task, (project_id, remote["id"]))
        if task.overlap_before is None:
            if not remote["is_labeled"]:
                continue  # somebody else opened it, and the next reconcile will see that
            task.overlap_before = given_back(int(remote["overlap"]), remote, mode)
            new.append(task.id)
        ours.append(remote)
    if new:
        ledger.append(session, project_id, "reopened", {"version": version, "tasks": new})
    return ours


def given_back(overlap: int, remote: Remote, mode: str) -> int:
    """The overlap under which a task is labelled, also where its flag was set by hand."""
    return max(1, min(overlap, len(_annotators(remote, mode))))


def is_done(remote: Remote, overlap: int, mode: str) -> bool:
    """Label Studio's own rule for `is_labeled`: so many different people annotated it."""
    return len(_annotators(remote, mode)) >= overlap


def _annotators(remote: Remote, mode: str) -> set[int | None]:
    rows = remote["annotations"]
    return {row["completed_by"] for row in rows if mode == "IGNORE_SKIPPED" or not row["was_cancelled"]}


def _places(remote: Remote, mode: str) -> int:
    """How many annotations take a place of the overlap when Label Studio looks for a task that nobody holds.

    Ground truths take none, and imported annotations are ground truths: one more place than this would let two
    people hold the task at once.
    """
    skips = mode != "REQUEUE_FOR_OTHERS"
    rows = [row for row in remote["annotations"] if not row["ground_truth"]]
    return sum(skips or not row["was_cancelled"] for row in rows)
