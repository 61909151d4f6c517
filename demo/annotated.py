"""Tasks imported with annotations, judged by what Label Studio itself shows of them before and after."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from demo.run import Running
from tasks.client import Client
from tasks.tables import Entry, Project, Published

PASSING = ("created_ago", "created_username")  # worded by the clock or by the user's name, not kept with an annotation


@dataclass(frozen=True)
class Imported:
    """annotations: by number, as imported. waiting: annotated tasks that were open before anything was reopened."""

    annotations: dict[int, dict[str, Any]]
    waiting: frozenset[int]


def imported(running: Running) -> Imported:
    """What the project's tasks carry now."""
    tasks = list(_annotated(running))
    return Imported(
        {row["id"]: _kept(row) for task in tasks for row in task["annotations"]},
        frozenset(task["id"] for task in tasks if not task["is_labeled"]),
    )


def judge(running: Running, before: Imported) -> dict[str, int]:
    """How many tasks were reopened, how many of them are open although they are in no published order (tasks that
    were open before not counted), and how many of the imported annotations are gone or not as they were.
    """
    with running.store.begin() as session:
        events = select(Entry).where(Entry.project_id == running.project, Entry.event == "reopened")
        reopened = {task for entry in session.scalars(events) for task in entry.body["tasks"]}
        head = set(
            session.scalars(
                select(Published.task_id)
                .join(Project, (Project.id == Published.project_id) & (Project.published == Published.version))
                .where(Published.project_id == running.project)
            )
        )
    now = list(_annotated(running))
    left = {task["id"] for task in now if not task["is_labeled"]} - head - before.waiting
    kept = {row["id"]: _kept(row) for task in now for row in task["annotations"]}
    changed = [number for number, row in before.annotations.items() if kept.get(number) != row]
    return {"reopened": len(reopened), "reopened_left_open": len(left), "annotations_changed": len(changed)}


def _annotated(running: Running) -> Iterator[dict[str, Any]]:
    client = Client(running.url, running.credentials.personal_access_token)
    for page in client.tasks(running.project):
        yield from (task for task in page if task["total_annotations"])  # a skip is none
    client.close()


def _kept(annotation: dict[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in annotation.items() if field not in PASSING}
