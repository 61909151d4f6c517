"""Who has answered more in a day than is good for the labels: Label Studio locks nobody out, so an admin is told."""

import time

from sqlalchemy import func, select

from tasks.store import Store
from tasks.tables import Annotation


def alarms(store: Store, project_id: int, limit: int) -> list[str]:
    """A sentence for each annotator who has given more than `limit` answers since midnight (UTC); 0: no limit."""
    if not limit:
        return []
    answers = func.count()
    midnight = time.strftime("%Y-%m-%dT00:00:00", time.gmtime())  # as Label Studio's times begin
    query = (
        select(Annotation.completed_by, answers)
        .where(
            Annotation.project_id == project_id,
            Annotation.origin == "person",
            Annotation.deleted_at.is_(None),
            Annotation.created_at >= midnight,
        )
        .group_by(Annotation.completed_by)
        .having(answers > limit)
        .order_by(Annotation.completed_by)
    )
    with store.begin() as session:
        return [
            f"user {who} has given {count} answers today: the daily limit is {limit}"
            for who, count in session.execute(query)
        ]
