"""Bringing the similar cases to the screen: the task field that the label config's HyperText shows (`model_role=
"similar"`), filled for the published order, first tasks first, and emptied for those that are to show none.

What a field should hold follows from the store, and what it holds is read before it is written: killed anywhere, the
next look goes on. Of the task's data only our field is changed, and nothing in it that is not ours. In the project's
turn only. Where the label config has no such HyperText, nothing is done.
"""

import structlog
from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from tasks.client import Client, LabelStudioError
from tasks.queue import open_head
from tasks.schema import parse_label_config
from tasks.similar import MARK
from tasks.store import Store
from tasks.tables import Project, Published, Task

log = structlog.get_logger()

A_LOOK = 20
"""Tasks filled at a time: half a second each in a project of 5,000, for which the project's turn is held."""


def hide(store: Store, client: Client, project_id: int, version: int) -> int:
    """Empty the field of tasks that a version shows without similar cases, before they can be served; returns how many.

    An earlier version may have filled it, and a blind task must not betray what the model finds alike.
    """
    field = _field(store, project_id)
    if field is None:
        return 0
    with store.begin() as session:
        without = _rows(project_id).where(Published.version == version, Published.similar.is_(None))
        tasks = session.scalars(_open(project_id).where(Task.id.in_(without)))
        held = [task.id for task in tasks if _ours(task.data.get(field))]
    return sum(_put(store, client, project_id, task, field, "") for task in held)


def fill(store: Store, client: Client, project_id: int) -> list[str]:
    """Show the similar cases of the published order's open tasks, and empty the field of those that left it.

    At most A_LOOK tasks; the next look goes on. Returns alarms for an admin.
    """
    field = _field(store, project_id)
    if field is None:
        return []
    head = open_head(store, project_id)
    with store.begin() as session:
        wanted = _wanted(session, project_id, field, head)
        tasks = session.scalars(_open(project_id).where(Task.id.in_(list(wanted))))
        held = {task.id: task.data.get(field) or "" for task in tasks}
    strange = [task for task in wanted if held[task] and not _ours(held[task])]
    due = [task for task in wanted if task not in set(strange) and held[task] != wanted[task]]
    filled = sum(_put(store, client, project_id, task, field, wanted[task]) for task in due[:A_LOOK])
    if filled:
        log.info("similar cases shown", project=project_id, tasks=filled, left=len(due) - filled)
    if not strange:
        return []
    return [
        f"the label config shows similar cases in the task field {field!r}, which holds something else in"
        f" {len(strange)} open tasks, such as {strange[0]}: it is left as it is; give the HyperText a field of its own"
    ]


def _field(store: Store, project_id: int) -> str | None:
    project = store.project(project_id)
    if project is None:
        return None
    role = parse_label_config(project.label_config).roles.get("similar")
    return None if role is None else role.field


def _open(project_id: int) -> Select[Task]:
    return select(Task).where(Task.project_id == project_id, Task.deleted_at.is_(None), Task.is_labeled.is_(False))


def _rows(project_id: int) -> Select[int]:
    """The tasks of any order."""
    return select(Published.task_id).where(Published.project_id == project_id)


def _wanted(session: Session, project_id: int, field: str, head: list[int]) -> dict[int, str]:
    """What the field of each task is to hold: the head first first, then those that an earlier order left filled."""
    published = select(Project.published).where(Project.id == project_id).scalar_subquery()
    now = select(Published.task_id, Published.similar).where(
        Published.project_id == project_id, Published.version == published
    )
    similar = {task: html or "" for task, html in session.execute(now)}
    before = _rows(project_id).where(Published.version != published, Published.similar.is_not(None))
    filled = _open(project_id).where(Task.id.in_(before), Task.data[field].as_string().startswith(MARK))
    left = session.scalars(filled.with_only_columns(Task.id))
    return {task: similar[task] for task in head} | {task: "" for task in left if task not in similar}


def _ours(held: object) -> bool:
    return isinstance(held, str) and held.startswith(MARK)


def _put(store: Store, client: Client, project_id: int, task_id: int, field: str, html: str) -> bool:
    """Write the field of one task; says whether it holds the HTML now.

    Label Studio replaces a task's data as a whole, so it is read right before, and what changed in it since the last
    look is kept. A task that Label Studio refuses is left to the next look, and the others do not wait for it.
    """
    remote = next((task for page in client.tasks_by_id(project_id, [task_id]) for task in page), None)
    if remote is None:  # deleted: the next reconcile finds out
        return False
    held = remote["data"].get(field)
    if held and not _ours(held):
        return False
    if held != html:
        try:
            if not client.update_task(task_id, data=remote["data"] | {field: html}):
                return False
        except LabelStudioError as error:
            if error.status != 400:
                raise
            log.warning("similar cases cannot be shown", project=project_id, task=task_id, error=str(error))
            return False
    with store.begin() as session:
        # At once, so that the next look finds nothing to do, whenever it reads the task again.
        task = session.get_one(Task, (project_id, task_id))
        task.data = task.data | {field: html}
    return True
