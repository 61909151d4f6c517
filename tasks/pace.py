"""How quickly the project's annotators work, and so how much of the queue to publish, and when."""

import time
from statistics import median

from sqlalchemy import and_, func, or_, select

from tasks.client import Client
from tasks.queue import answered_by, open_head
from tasks.referred import with_expert
from tasks.reopen import to_review
from tasks.store import Store
from tasks.tables import Annotation, Project, Published, Task

DAY = 24 * 3600.0  # seconds


def head_size(store: Store, project_id: int, batch: int, hours: float) -> int:
    """How many tasks to publish: three batches, or `hours` of work at the annotators' pace, whichever is more.

    The pace is that of the last day: over its annotators, one task per median lead time.
    """
    with store.begin() as session:
        rows = session.execute(
            select(Annotation.completed_by, Annotation.lead_time).where(
                Annotation.project_id == project_id,
                Annotation.origin == "person",
                Annotation.lead_time.is_not(None),
                Annotation.created_at >= _a_day_ago(),
            )
        ).all()
    times: dict[int | None, list[float]] = {}
    for row in rows:
        times.setdefault(row.completed_by, []).append(max(row.lead_time, 1.0))
    pace = sum(3600.0 / median(seconds) for seconds in times.values())  # tasks an hour
    return max(3 * batch, round(pace * hours))


def annotators(store: Store, project_id: int) -> int:
    """How many people annotated within the last day; at least one."""
    return max(len(active(store, project_id)), 1)


def active(store: Store, project_id: int) -> set[int]:
    """Who annotated within the last day."""
    with store.begin() as session:
        query = (
            select(Annotation.completed_by)
            .where(
                Annotation.project_id == project_id,
                Annotation.origin.in_(["person", "skipped"]),
                Annotation.created_at >= _a_day_ago(),
            )
            .distinct()
        )
        return {person for person in session.scalars(query) if person is not None}


def wants_refill(store: Store, client: Client, project_id: int) -> bool:
    """Whether fewer than three unlocked open tasks of the head are left for each annotator."""
    return bool(short_of_tasks(store, client, project_id))


def short_of_tasks(store: Store, client: Client, project_id: int) -> list[int | None]:
    """The annotators of the last day for whom the head is to be refilled; None stands for whoever comes.

    Each is served only what they have not answered before, so that their heads differ: in a project that two people
    annotated long ago, each reviews the other's work. No call tells who holds a lock, but nobody holds more than one
    task of the stream: every member may hold one.
    """
    people = active(store, project_id)
    everybody: list[int | None] = [*sorted(people)] or [None]
    mark = 3 * max(len(people), 1) + max(len(people), client.members())
    return [
        person
        for person in everybody
        if len(open_head(store, project_id, skipped=person is not None, person=person)) < mark
        and _unpublished(store, project_id, person)
    ]


def waiting_for_others(store: Store, project_id: int) -> list[str]:
    """An alarm where open tasks are left, and none that anybody who works here can be served."""
    people = active(store, project_id)
    if not people or any(
        open_head(store, project_id, person=person) or _unpublished(store, project_id, person) for person in people
    ):
        return []
    with store.begin() as session:
        left = session.scalar(
            select(func.count())
            .select_from(Task)
            .where(
                Task.project_id == project_id,
                Task.deleted_at.is_(None),
                Task.pixels.is_not(None),
                or_(Task.is_labeled.is_(False), and_(*to_review(project_id))),
                Task.id.not_in(with_expert(project_id)),
            )
        )
    if not left:
        return []
    return [
        f"{left} tasks wait for somebody else: Label Studio serves nobody a task that they annotated or skipped"
        " themselves, and all who work here did"
    ]


def _unpublished(store: Store, project_id: int, person: int | None) -> bool:
    """Whether there is a task to publish that this user can be served."""
    # The order of probabilities made elsewhere goes without images.
    imported = select(Project.probabilities).where(Project.id == project_id).scalar_subquery().is_not(None)
    with store.begin() as session:
        unpublished = (
            select(Task.id)
            .where(
                Task.project_id == project_id,
                Task.deleted_at.is_(None),
                or_(Task.is_labeled.is_(False), and_(*to_review(project_id))),
                Task.id.not_in(with_expert(project_id)),
                or_(Task.pixels.is_not(None), imported),
                Task.id.not_in(
                    select(Published.task_id)
                    .join(Project, Project.id == Published.project_id)
                    .where(Published.project_id == project_id, Published.version == Project.published)
                ),
            )
            .limit(1)
        )
        if person is not None:
            unpublished = unpublished.where(Task.id.not_in(answered_by(project_id, person)))
        return session.scalar(unpublished) is not None


def _a_day_ago() -> str:
    """As Label Studio's times begin, so that it compares with them as text."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() - DAY))
