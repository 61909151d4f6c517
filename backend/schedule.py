"""When a project's next training is due, and when tasks that came later are to be caught up with."""

import time

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from backend.settings import Settings
from tasks.schema import parse_label_config
from tasks.store import Store
from tasks.tables import Annotation, Job, Project, Task, Version

LEAST = 50  # annotations, unless the setting says otherwise
SHARE = 0.005  # of the labels
REST = 2.0  # times the last training's duration until the next
AFTER_FAILURE = 600.0  # seconds before a failed job is tried again unasked


def pending(session: Session, project_id: int) -> int:
    """Annotations of people that no version has learnt in their present state."""
    query = select(func.count()).where(
        Annotation.project_id == project_id,
        Annotation.origin == "person",
        Annotation.trained_in.is_(None),
        Annotation.deleted_at.is_(None),
    )
    return session.scalar(query) or 0


def threshold(session: Session, settings: Settings, project_id: int) -> int:
    """How many of them make a training due."""
    if settings.retrain_after:
        return settings.retrain_after
    last = session.scalars(
        select(Version.labels).where(Version.project_id == project_id).order_by(Version.number.desc()).limit(1)
    ).first()
    return max(LEAST, round(SHARE * (last or 0)))


def training_due(store: Store, settings: Settings, project_id: int) -> str | None:
    """Why a training is due now; None when it is not, or one is queued or has just failed.

    Probabilities that were made elsewhere are not replaced unasked; nor is anything once the project is stopped,
    whatever changes.
    """
    with store.begin() as session:
        project = session.get_one(Project, project_id)
        if project.stopped is not None:
            return None
        unended = select(Job.id).where(Job.project_id == project_id, Job.state.in_(["queued", "running"]))
        importing = session.scalars(unended.where(Job.kind == "probabilities").limit(1)).first() is not None
        if project.probabilities is not None or importing:
            return None
        jobs = select(Job).where(Job.project_id == project_id, Job.kind == "cycle")
        if session.scalars(jobs.where(Job.state == "queued")).first() is not None:
            return None
        running = session.scalars(jobs.where(Job.state == "running")).first() is not None
        latest = session.scalars(jobs.order_by(Job.id.desc()).limit(1)).first()
        failed = latest is not None and latest.state == "failed"
        if latest is not None and failed and time.time() - (latest.finished_at or 0.0) < AFTER_FAILURE:
            return None
        if project.version is None:
            any_task = select(Task.id).where(Task.project_id == project_id, Task.deleted_at.is_(None)).limit(1)
            return "the first model" if not running and session.scalars(any_task).first() is not None else None
        if running:
            return None
        newest = select(Version).where(Version.project_id == project_id).order_by(Version.number.desc()).limit(1)
        version, last = session.get_one(Version, (project_id, project.version)), session.scalars(newest).one()
        if parse_label_config(project.label_config).fingerprint() != version.schema:
            return "the label config has changed"
        waiting, needed = pending(session, project_id), threshold(session, settings, project_id)
        if waiting < needed or time.time() - last.created_at < REST * last.seconds:
            return None
        return f"{waiting} new or changed annotations, {needed} make a training due"


def unread(session: Session, project_id: int) -> int:
    """Tasks whose image was not looked at yet: new ones, and those that were given another image."""
    query = select(func.count()).where(
        Task.project_id == project_id, Task.deleted_at.is_(None), Task.pixels.is_(None), Task.image_error.is_(None)
    )
    return session.scalar(query) or 0


def catch_up_due(store: Store, project_id: int) -> str | None:
    """Why tasks are to be read and ranked by the version in force now; None when not, or while another job sees to it.

    A training that failed, or whose model was refused, may have read images that the model in force has not scored, and
    so may others before an older one was put in force. Where the probabilities were made elsewhere, there is nothing to
    predict with.
    """
    with store.begin() as session:
        project = session.get_one(Project, project_id)
        if project.version is None or project.probabilities is not None:
            return None
        jobs = select(Job).where(Job.project_id == project_id)
        if session.scalars(jobs.where(Job.state.in_(["queued", "running"])).limit(1)).first() is not None:
            return None
        latest = session.scalars(jobs.order_by(Job.id.desc()).limit(1)).first()
        failed = latest is not None and latest.state == "failed"
        if latest is not None and latest.kind == "catch-up":
            # Images that come one at a time must not keep a machine busy, nor may a fault.
            ended = latest.finished_at or 0.0
            rest = AFTER_FAILURE if failed else ended - (latest.started_at or ended)
            if time.time() - ended < rest:
                return None
        waiting = unread(session, project_id)
        if waiting:
            return f"{waiting} new or changed images"
        if failed:
            return "what a failed job has read"
        if latest is not None and latest.kind == "promotion":
            return "what the model put in force has not seen"
        refused = latest is not None and latest.kind == "cycle" and latest.version != project.version
        return "what a refused model has read" if refused else None
