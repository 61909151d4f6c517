"""What runs, what it knows and what comes next: the facts behind `second-look status` and /metrics."""

import time
from typing import Any

from sqlalchemy import ColumnElement, String, cast, func, select
from sqlalchemy.orm import Session

from backend import centres, evidence, jobs, schedule
from backend.registry import Registry
from backend.report import masks, stopping
from backend.report.limits import limits
from backend.report.material import read
from backend.settings import Settings
from backend.weights_in_words import sentences
from tasks import queue
from tasks.referred import with_expert
from tasks.schema import parse_label_config
from tasks.store import Store
from tasks.tables import Annotation, Entry, Job, Project, Published, Task, Version

FAILED_SHOWN = 20  # unusable images named in full


def overview(store: Store, settings: Settings) -> dict[str, Any]:
    """Everything about this backend: its workers and its projects, what reviews have shown and if they are enough.

    It reads every task: seconds where they are many.
    """
    registry = Registry(settings.state_dir)
    with store.begin() as session:
        projects = session.scalars(select(Project.id).order_by(Project.id)).all()
    return {
        "label_studio": settings.label_studio_url,
        "workers": jobs.workers(store),
        "projects": [
            of_project(store, settings, project_id) | _judged(store, registry, settings, project_id)
            for project_id in projects
        ],
    }


def _judged(store: Store, registry: Registry, settings: Settings, project_id: int) -> dict[str, Any]:
    material = read(store, registry, project_id)
    tuned = settings.tuned(material.project.extra_params)
    return {
        "limits": limits(material),
        "masks": masks.summary(material),
        "evidence": evidence.of_project(material),
        "stopping": stopping.advice(material, tuned, queue.open_head(store, project_id)),
    }


def of_project(store: Store, settings: Settings, project_id: int) -> dict[str, Any]:
    """One project: tasks, annotations, model, queue, the next training and a running one. Raises NoResultFound."""
    waiting = len(queue.open_head(store, project_id))
    with store.begin() as session:
        project = session.get_one(Project, project_id)
        settings = settings.tuned(project.extra_params)
        tasks = _count(session, Task, project_id, Task.deleted_at.is_(None))
        pending, needed = schedule.pending(session, project_id), schedule.threshold(session, settings, project_id)
        return {
            "project": project_id,
            "title": project.title,
            "connection": project.connection,
            "seconds_since_sync": None if project.synced_at is None else round(time.time() - project.synced_at, 1),
            "alarms": list(project.alarms),
            "tasks": tasks,
            "tasks_open": _count(session, Task, project_id, Task.deleted_at.is_(None), Task.is_labeled.is_(False)),
            "images_failed": _failed_images(session, project_id),
            "catching_up": {
                "waiting": schedule.unread(session, project_id),
                "job": _job(session, project_id, Job.kind == "catch-up"),
            },
            "tasks_with_problems": _problems(session, project_id),
            "annotations": _count(
                session, Annotation, project_id, Annotation.deleted_at.is_(None), Annotation.origin == "person"
            ),
            "ledger_entries": _count(session, Entry, project_id),
            "model": _model(session, Registry(settings.state_dir), project),
            "probabilities": project.probabilities,
            "queue": {
                "published": None if project.published is None else queue.queue_name(project.published),
                "size": _published(session, project_id, project.published or 0),
                "open": waiting,
            },
            "expert": _expert(session, project),
            "training": {
                "new_annotations": pending,
                "needed": needed,
                "labels_until_next": max(needed - pending, 0),
                "stopped": project.stopped,
                "job": _job(session, project_id, Job.kind != "catch-up"),
            },
        }


def _expert(session: Session, project: Project) -> dict[str, Any]:
    """Flagged tasks that wait, and where: below Label Studio's address; None until somebody has opened the project."""
    tab = project.expert_view
    return {
        "waiting": len(session.scalars(with_expert(project.id)).all()),
        "path": None if tab is None else f"/projects/{project.id}/data?tab={tab}",
    }


def _published(session: Session, project_id: int, version: int) -> int:
    """Tasks of an order that are still there."""
    gone = select(Task.id).where(Task.project_id == project_id, Task.deleted_at.is_not(None))
    return _count(session, Published, project_id, Published.version == version, Published.task_id.not_in(gone))


def _count(session: Session, table: type[Any], project_id: int, *conditions: Any) -> int:
    query = select(func.count()).select_from(table).where(table.project_id == project_id, *conditions)
    return session.scalar(query) or 0


def _failed_images(session: Session, project_id: int) -> dict[str, Any]:
    conditions = (Task.project_id == project_id, Task.deleted_at.is_(None), Task.image_error.is_not(None))
    rows = session.execute(select(Task.id, Task.image_error).where(*conditions).order_by(Task.id).limit(FAILED_SHOWN))
    return {
        "count": session.scalar(select(func.count()).select_from(Task).where(*conditions)) or 0,
        "tasks": [{"task": row.id, "reason": row.image_error} for row in rows],
    }


def _problems(session: Session, project_id: int) -> list[dict[str, Any]]:
    there = (Task.project_id == project_id, Task.deleted_at.is_(None), cast(Task.problems, String) != "[]")
    rows = session.execute(select(Task.id, Task.problems).where(*there).order_by(Task.id).limit(FAILED_SHOWN))
    return [{"task": row.id, "problems": row.problems} for row in rows]


def _model(session: Session, registry: Registry, project: Project) -> dict[str, Any] | None:
    if project.version is None:
        return None
    version = session.get_one(Version, (project.id, project.version))
    return {
        "version": version.number,
        "labels": version.labels,
        "seconds": round(version.seconds, 1),
        "holdout": version.metrics,
        "verdict": version.verdict,
        "refused": _refused(session, version),
        "centres": centres.of_version(registry.version(project.id, version.number)),
        "archived": _archived(session, project),
        "weighing": sentences(version.metrics),
    }


def _refused(session: Session, in_force: Version) -> list[dict[str, Any]]:
    """Newer versions than the one in force, which did not take over, and why."""
    query = select(Version).where(Version.project_id == in_force.project_id, Version.number > in_force.number)
    newer = session.scalars(query.order_by(Version.number))
    return [{"version": version.number, "reason": (version.verdict or {}).get("reason")} for version in newer]


def _archived(session: Session, project: Project) -> dict[str, int]:
    """Heads that the label config no longer has, with the last version whose folder holds their weights."""
    heads = {head.name for head in parse_label_config(project.label_config).learnt}
    versions = session.scalars(select(Version).where(Version.project_id == project.id).order_by(Version.number))
    return {head: version.number for version in versions for head in version.metrics if head not in heads}


def _job(session: Session, project_id: int, kind: ColumnElement[bool]) -> dict[str, Any] | None:
    job = session.scalars(
        select(Job)
        .where(Job.project_id == project_id, kind)
        .order_by((Job.state == "running").desc(), Job.id.desc())
        .limit(1)
    ).first()
    if job is None:
        return None
    return {
        "id": job.id,
        "kind": job.kind,
        "state": job.state,
        "reason": job.reason,
        "step": job.step,
        "done": job.done,
        "total": job.total,
        "version": job.version,
        "attempts": job.attempts,
        "error": job.error,
    }
