"""What the published head shows of images that have changed: an answer to another image is never left standing.

The order of the head stays: only what a task's prediction shows is replaced, in the store and in Label Studio.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import structlog
from numpy.typing import ArrayLike
from sqlalchemy import select

from backend import regions
from backend.scored import Scored
from backend.settings import Settings
from tasks import ledger
from tasks.client import Client, LabelStudioError
from tasks.codec import Result
from tasks.labels import by_task, settle
from tasks.present import phrases_of, present
from tasks.queue import SENT, open_head
from tasks.ranking.hybrid import weights_of
from tasks.schema import Labels, parse_label_config
from tasks.store import Store
from tasks.tables import Annotation, Project, Published, Task
from tasks.why import Reason, Slot

log = structlog.get_logger()

Said = tuple[Mapping[str, ArrayLike], list[Result] | None, Reason]
"""Probabilities per head (C,) of one task and what is drawn in it, none to abstain; and what the model makes of it."""


def withdraw(store: Store, client: Client, settings: Settings, project_id: int) -> int:
    """Take back what open tasks of the published head show whose new image was not read yet; returns how many.

    In the project's turn only. Raises what Label Studio's calls raise.
    """
    with store.begin() as session:
        project = session.get_one(Project, project_id)
        if project.published is None or project.probabilities is not None:  # made elsewhere: they go without images
            return 0
        unread = session.scalars(
            select(Published.task_id)
            .join(Task, (Task.project_id == Published.project_id) & (Task.id == Published.task_id))
            .where(Published.project_id == project_id, Published.version == project.published, Task.pixels.is_(None))
        ).all()
    if not unread:
        return 0
    tasks = [task for task in open_head(store, project_id) if task in set(unread)]
    return _renew(store, client, settings, project_id, tasks, lambda task, current: ({}, None, "random"))


def show_anew(store: Store, client: Client, settings: Settings, project_id: int, scored: Scored, folder: Path) -> int:
    """Show what the model says by now of those of its tasks that are open in the published head; returns how many.

    folder: of the version that says it, with what it draws. In the project's turn only. Raises what Label Studio's
    calls raise.
    """
    project = store.project(project_id)
    if project is None:
        return 0
    schema = parse_label_config(project.label_config)
    said = scored.under(schema.learnt)

    def of(task: int, current: Labels) -> Said:
        if said.scores is None:
            return {}, None, "diversity"
        weights = weights_of(settings.preset, recorded=bool(current))
        pixels = str(said.pixels[said.row_of[task]])
        drawn = regions.of_task(folder, task, pixels, schema) if said.drawn else None
        return said.of(task) or {}, drawn, said.reason(task, weights, 0.0, schema.heads, current)

    return _renew(
        store, client, settings, project_id, [task for task in open_head(store, project_id) if task in said.row_of], of
    )


def _renew(
    store: Store,
    client: Client,
    settings: Settings,
    project_id: int,
    tasks: list[int],
    said: Callable[[int, Labels], Said],
) -> int:
    """Replace what these tasks of the published head show, one by one, where it is something else."""
    if not tasks:
        return 0
    phrases, renewed = phrases_of(settings.phrases), 0
    with store.begin() as session:
        project = session.get_one(Project, project_id)
        version, schema = project.published, parse_label_config(project.label_config)
        rows = session.scalars(
            select(Published).where(
                Published.project_id == project_id, Published.version == version, Published.task_id.in_(tasks)
            )
        ).all()
        said_by = by_task(
            session.scalars(
                select(Annotation).where(Annotation.project_id == project_id, Annotation.task_id.in_(tasks))
            )
        )
        records = session.scalars(select(Task).where(Task.project_id == project_id, Task.id.in_(tasks))).all()
    current = {task.id: settle(said_by.get(task.id, []), task.current).current for task in records}
    for row in rows:
        if row.prediction_id == SENT:  # its import is under way: next time
            continue
        record = current[row.task_id]
        probabilities, drawn, reason = said(row.task_id, record)
        slot = cast(Slot, row.kind if probabilities or drawn is not None else "abstain")
        enough = project.stopped is not None
        why, shown = present(schema, phrases, probabilities, record, slot, reason, enough=enough, regions=drawn)
        if shown == row.shown:
            continue
        if row.prediction_id is not None:
            try:
                client.update_prediction(row.prediction_id, result=shown)
            except LabelStudioError as error:
                if error.status != 404:  # deleted: what is in the store by then is sent again
                    raise
        with store.begin() as session:
            kept = session.get_one(Published, (project_id, version, row.task_id))
            # An annotator may have opened the task before: what was shown until now stays on record.
            body = {"version": version, "prediction": row.prediction_id, "from": kept.shown, "to": shown}
            ledger.append(session, project_id, "renewed", body, task_id=row.task_id)
            kept.why, kept.shown, kept.similar = why, shown, None  # the cases were like the image before
        renewed += 1
    if renewed:
        log.info("images of the published head have changed", project=project_id, version=version, shown_anew=renewed)
    return renewed
