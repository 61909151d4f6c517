"""Which tasks are with the expert: handed over by a flag and not taken back yet. The ledger is the record of it."""

from sqlalchemy import Select, case, func, select
from sqlalchemy.orm import Session

from tasks import ledger
from tasks.labels import by_task, settle
from tasks.tables import Annotation, Entry, Task

REFERRED, RETURNED = "referred", "returned"


def with_expert(project_id: int) -> Select[int]:
    """Tasks that are with the expert: they have no place in the queue."""
    last = [func.max(case((Entry.event == event, Entry.seq), else_=0)) for event in (REFERRED, RETURNED)]
    query = (
        select(Entry.task_id)
        .where(Entry.project_id == project_id, Entry.event.in_([REFERRED, RETURNED]), Entry.task_id.is_not(None))
        .group_by(Entry.task_id)
        .having(last[0] > last[1])
    )
    return query  # type: ignore[return-value]  # the condition leaves no NULL


def unsettled(session: Session, project_id: int) -> set[int]:
    """Tasks that somebody flagged for the expert, and that nobody has settled: they belong with the expert."""
    flagged = select(Annotation.task_id).where(
        Annotation.project_id == project_id, Annotation.flagged.is_(True), Annotation.deleted_at.is_(None)
    )
    rows = session.scalars(
        select(Annotation)
        .join(Task, (Task.project_id == Annotation.project_id) & (Task.id == Annotation.task_id))
        .where(Annotation.project_id == project_id, Annotation.task_id.in_(flagged), Task.deleted_at.is_(None))
    )
    return {task for task, said in by_task(rows).items() if settle(said, {}).flagged}


def refer(session: Session, project_id: int, task: int) -> None:
    """Record that a task goes to the expert; before anything is done about it."""
    ledger.append(session, project_id, REFERRED, {}, task_id=task)


def take_back(session: Session, project_id: int, task: int, because: str) -> None:
    """Record that a task is with the expert no more, and why; after all that is to be done about it."""
    ledger.append(session, project_id, RETURNED, {"because": because}, task_id=task)
