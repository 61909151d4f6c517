"""Reconcile: make the store equal to Label Studio, whatever webhooks were lost, repeated or reordered.

Incremental by `task.updated_at`, which moves with every change of an annotation; a full pass when the project's counts
say that tasks were deleted, closed or reopened (which moves nothing), when the label config changed, and once a day.
"""

import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from tasks import recording
from tasks.client import Client
from tasks.identity import check
from tasks.schema import parse_label_config
from tasks.store import Store, lock_project
from tasks.tables import Project, Task
from tasks.takeover import Changes, Remote, apply_page, forget, utc

log = structlog.get_logger()

FULL_EVERY = 24 * 3600.0  # seconds
OVERLAP = timedelta(seconds=60)  # read again: a slow transaction may commit behind the cursor


def reconcile(
    store: Store,
    client: Client,
    project_id: int,
    *,
    full: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Changes:
    """Bring the store up to date with one project.

    Args:
        full: read every task, and mark those that are gone as deleted.
        progress: called with tasks read and their number.
    Raises:
        LabelStudioError, httpx.HTTPError: Label Studio cannot be asked; the store keeps what it had.
        OtherLabelStudio: the project is not the one that was connected.
        SchemaError: the project's label config has nothing to learn.
    """
    remote = client.project(project_id)
    schema = parse_label_config(remote["label_config"])
    with store.begin() as session:
        project = session.get_one(Project, project_id)
        check(project_id, project.created_at, remote["created_at"])
        project.created_at = remote["created_at"]
        if project.label_config != remote["label_config"]:
            project.cursor = None  # what was read has to be read again by the new one
        project.title, project.label_config = remote["title"], remote["label_config"]
        cursor = project.cursor
        if cursor is None:  # the first pass, or the label config changed
            recording.configured(session, project_id, project.label_config)
        full = full or cursor is None or time.time() - (project.full_sync_at or 0.0) > FULL_EVERY
        first = project.full_sync_at is None

    changes = Changes(full=full)
    # Read before the pages: what changes behind our back while they are read lies after it.
    newest = client.newest_change(project_id)
    seen: set[int] = set()

    def take(pages: Iterator[list[Remote]]) -> None:
        for page in pages:
            with store.begin() as session:
                lock_project(session, project_id)  # what is compared must not change before it is written
                apply_page(session, project_id, schema, page, changes, first=first)
            seen.update(row["id"] for row in page)
            if progress is not None:
                progress(len(seen), max(remote["task_number"], len(seen)))

    take(client.tasks(project_id, None if full else _before(cursor)))
    if full:
        # A deletion while we read moves tasks between pages, so those that were not met are asked for by number.
        take(client.tasks_by_id(project_id, sorted(_known(store, project_id) - seen)))
    with store.begin() as session:
        lock_project(session, project_id)
        project = session.get_one(Project, project_id)
        project.synced_at = time.time()
        if newest is not None and project.label_config == remote["label_config"]:  # /setup may have brought another
            project.cursor = utc(newest)
        if full:
            project.full_sync_at = time.time()
            forget(session, project_id, seen, changes)
        counts = _counts(session, project_id)
    # Counts that moved while we read prove nothing; those that stood still and are not ours do.
    if not full and counts != _remote_counts(remote) == _remote_counts(client.project(project_id)):
        log.info("tasks were deleted, closed or reopened in Label Studio", project=project_id)
        return reconcile(store, client, project_id, full=True, progress=progress)
    if changes.annotations or full:
        log.info("reconciled", project=project_id, **vars(changes))
    return changes


def _counts(session: Session, project_id: int) -> tuple[int, int]:
    """Tasks, and those of them that are labelled."""
    query = select(func.count(), func.count().filter(Task.is_labeled)).where(
        Task.project_id == project_id, Task.deleted_at.is_(None)
    )
    tasks, labelled = session.execute(query).one()
    return tasks, labelled


def _remote_counts(remote: dict[str, Any]) -> tuple[int, int]:
    return remote["task_number"], remote["finished_task_number"]


def _known(store: Store, project_id: int) -> set[int]:
    with store.begin() as session:
        query = select(Task.id).where(Task.project_id == project_id, Task.deleted_at.is_(None))
        return set(session.scalars(query))


def _before(cursor: str | None) -> str | None:
    if cursor is None:
        return None
    return (datetime.fromisoformat(cursor) - OVERLAP).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
