"""The end of a project's trainings: by hand, or by itself once enough is reviewed; on the record, and taken back.

The order that is published stays and is refilled, and answers go on being recorded. A training that somebody asks for
still comes.
"""

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.evaluation import stopping
from backend.registry import Registry
from backend.report.material import read
from backend.report.stopping import advice, budgets
from backend.settings import Settings
from tasks import ledger, queue
from tasks.store import Store, lock_project
from tasks.tables import Annotation, Entry, Project

log = structlog.get_logger()

MADE = ("trained", "imported")  # events of a model that is new, not one put in force again


def stop(store: Store, project_id: int, because: str, by: str) -> bool:
    """Let no training come unasked; returns False where none came already, which changes nothing.

    because: for people, in `status` and the report. by: who did, "worker" or "command line". Raises NoResultFound for
    a project that is not known.
    """
    with store.begin() as session:
        lock_project(session, project_id)
        project = session.get_one(Project, project_id)
        if project.stopped is not None:
            return False
        project.stopped = because
        ledger.append(session, project_id, "stopped", {"because": because, "by": by, "version": project.version})
    log.info("stopped", project=project_id, because=because, by=by)
    return True


def resume(store: Store, project_id: int, because: str) -> bool:
    """Let trainings come again; returns False where they do already. Raises NoResultFound as `stop`."""
    with store.begin() as session:
        lock_project(session, project_id)
        project = session.get_one(Project, project_id)
        if project.stopped is None:
            return False
        project.stopped = None
        ledger.append(session, project_id, "resumed", {"because": because, "version": project.version})
    log.info("resumed", project=project_id, because=because)
    return True


def stop_if_enough(store: Store, registry: Registry, settings: Settings, project_id: int, thorough: bool) -> bool:
    """Stop where the setting says `auto` and enough is reviewed; returns whether it did.

    settings: tuned to the project. thorough: look at all criteria, which takes reading every task: where a training or
    a refill is due, which is when it matters; else at the budgets alone. Whoever resumed gets another model before it
    can stop again.
    """
    if settings.stop != "auto":
        return False
    with store.begin() as session:
        project = session.get_one(Project, project_id)
        if project.stopped is not None or project.version is None or _just_resumed(session, project_id):
            return False
        rows = select(Annotation.origin, Annotation.lead_time).where(
            Annotation.project_id == project_id, Annotation.deleted_at.is_(None)
        )
        budgeted = settings.budget_annotations or settings.budget_hours
        answers = [(row.origin, row.lead_time) for row in session.execute(rows)] if budgeted else []
    reasons = [row.said for row in stopping.reasons(budgets(answers, settings))]
    if not reasons and thorough:
        found = advice(read(store, registry, project_id), settings, queue.open_head(store, project_id))
        reasons = [] if found is None else found["reasons"]
    return bool(reasons) and stop(store, project_id, " ".join(reasons), "worker")


def _just_resumed(session: Session, project_id: int) -> bool:
    """Whether no model was made since somebody resumed."""
    query = select(Entry.event).where(Entry.project_id == project_id, Entry.event.in_(["resumed", *MADE]))
    return session.scalars(query.order_by(Entry.seq.desc()).limit(1)).first() == "resumed"
