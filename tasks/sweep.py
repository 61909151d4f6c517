"""Deleting the predictions of orders that nobody works on any more."""

import time

import structlog
from sqlalchemy import select

from tasks.client import Client
from tasks.queue import queue_name
from tasks.store import Store
from tasks.tables import Project, Published, Task, Version

log = structlog.get_logger()


def sweep(store: Store, client: Client, project_id: int, lock_hours: float) -> list[int]:
    """Delete the predictions of versions that nobody can still submit: returns their numbers.

    A submit names the prediction it began from and fails when that is gone, so a version stays until it was
    replaced longer ago than the task lock lasts and no draft is open on its tasks.
    """
    with store.begin() as session:
        versions = session.scalars(
            select(Version)
            .where(Version.project_id == project_id, Version.published_at.is_not(None), Version.deleted_at.is_(None))
            .order_by(Version.number)
        ).all()
        published = session.get_one(Project, project_id).published
    deleted = []
    for version, successor in zip(versions, versions[1:], strict=False):
        assert successor.published_at is not None  # by the query
        if version.number == published or time.time() - successor.published_at < lock_hours * 3600:
            continue
        with store.begin() as session:
            ids = session.scalars(
                select(Published.task_id)
                .join(Task, (Task.project_id == Published.project_id) & (Task.id == Published.task_id))
                .where(
                    Published.project_id == project_id,
                    Published.version == version.number,
                    Task.deleted_at.is_(None),
                )
            ).all()
        if any(task.get("draft_exists") for page in client.tasks_by_id(project_id, ids) for task in page):
            continue
        client.delete_version(project_id, queue_name(version.number))
        with store.begin() as session:
            session.get_one(Version, (project_id, version.number)).deleted_at = time.time()
        deleted.append(version.number)
        log.info("deleted old predictions", project=project_id, version=version.number)
    return deleted
