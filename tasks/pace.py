"""How quickly the project's annotators work, and so how much of the queue to publish."""

import time
from statistics import median

from sqlalchemy import func, select

from tasks.store import Store
from tasks.tables import Annotation

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
    with store.begin() as session:
        query = select(func.count(Annotation.completed_by.distinct())).where(
            Annotation.project_id == project_id,
            Annotation.origin.in_(["person", "skipped"]),
            Annotation.created_at >= _a_day_ago(),
        )
        return max(session.scalar(query) or 0, 1)


def _a_day_ago() -> str:
    """As Label Studio's times begin, so that it compares with them as text."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() - DAY))
