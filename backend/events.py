"""What Label Studio's events mean: hints that wake the worker, or the wish to train now. None of them is counted."""

from typing import Any

from backend import jobs
from tasks.store import Store

START_TRAINING = "START_TRAINING"
HINTS = frozenset(
    {
        "TASKS_CREATED",
        "TASKS_DELETED",
        "ANNOTATION_CREATED",
        "ANNOTATIONS_CREATED",
        "ANNOTATION_UPDATED",
        "ANNOTATIONS_DELETED",
        "PROJECT_UPDATED",
    }
)


def concerns_us(action: str) -> bool:
    """Whether an event of this name changes anything here."""
    return action in HINTS or action == START_TRAINING


def hear(store: Store, bell: jobs.Bell, project_id: int, action: str) -> dict[str, Any]:
    """Act on an event of a registered project, in milliseconds: the worker asks Label Studio what really happened."""
    answer: dict[str, Any] = {"status": "noted"}
    if action == START_TRAINING:
        answer = {"status": "queued", "job": jobs.request(store, project_id, "cycle", "asked for in Label Studio")}
    bell.ring(project_id)
    return answer
