"""Tasks flagged for an expert: out of everybody's queue, in a Data Manager tab of their own, until they are answered.

Such a task is open, but as many annotations as its overlap take its places: "Label All Tasks" never serves it, while
"Label Tasks As Displayed" asks for `is_labeled` alone. Its prediction bears a version of its own, by which the tab
finds it: there is no suggestion to follow, and the tab's filter never changes. Everything here can be killed anywhere
and run again; all of it only in the project's turn.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import structlog
from sqlalchemy import select

from tasks import referred
from tasks.client import Client, LabelStudioError
from tasks.queue import queue_name
from tasks.referred import unsettled, with_expert
from tasks.reopen import Remote, given_back, is_done, pages
from tasks.store import Store
from tasks.tables import Annotation, Project, Published, Task

log = structlog.get_logger()

MARK = "for-the-expert"
"""`model_version` of the predictions of tasks that are with the expert."""
TITLE = "For the expert"
_COLUMN = "filter:tasks:predictions_model_versions"
_FILTERS = {
    "conjunction": "and",
    "items": [{"filter": _COLUMN, "operator": "contains", "type": "List", "value": [MARK]}],
}


def look(store: Store, client: Client, project_id: int) -> None:
    """Hand over what was flagged, take back what is settled, and see that there is a tab. After a reconcile.

    What is with the expert is looked at every time: a skip, an edit or another annotation closes it.
    """
    with store.begin() as session:
        wanted = unsettled(session, project_id)
        over = set(session.scalars(with_expert(project_id))) - wanted
    _take_back(store, client, project_id, over)
    if wanted:
        _hand_over(store, client, project_id, wanted)
        _see_to_tab(store, client, project_id)


def withdraw(store: Store, client: Client, project_id: int) -> None:
    """Take everything back from the expert, and remove the tab: the project is disconnected."""
    with store.begin() as session:
        held = set(session.scalars(with_expert(project_id)))
        session.get_one(Project, project_id).expert_view = None
    _take_back(store, client, project_id, held, "disconnected")
    for tab in filter(_is_ours, client.tabs(project_id)):
        client.delete_tab(tab["id"])


def _hand_over(store: Store, client: Client, project_id: int, tasks: set[int]) -> None:
    mode, new = client.project(project_id)["skip_queue"], 0
    with store.begin() as session:
        published = session.get_one(Project, project_id).published
    for page in pages(client, project_id, sorted(tasks)):
        with store.begin() as session:
            known = set(session.scalars(with_expert(project_id)))
            for remote in page:
                if remote["id"] in known:
                    continue
                task = session.get_one(Task, (project_id, remote["id"]))
                if task.overlap_before is None:
                    overlap = int(remote["overlap"])
                    task.overlap_before = given_back(overlap, remote, mode) if remote["is_labeled"] else overlap
                referred.refer(session, project_id, remote["id"])
                new += 1
        for remote in page:
            _hide_suggestion(store, client, project_id, remote, published)
            _set(client, remote, max(1, _taken(remote, mode)), False)
            with store.begin() as session:
                # At once, so that the next reconcile finds nothing amiss.
                session.get_one(Task, (project_id, remote["id"])).is_labeled = False
    if new:
        log.info("flagged tasks wait for the expert", project=project_id, tasks=new)


def _take_back(store: Store, client: Client, project_id: int, tasks: set[int], because: str | None = None) -> None:
    """Close the tasks by Label Studio's own rule, or leave them open where the rule does.

    because: why; None: an expert answered, or nobody asks for one any more.
    """
    if not tasks:
        return
    mode, there = client.project(project_id)["skip_queue"], set()
    with store.begin() as session:
        still_flagged = set(
            session.scalars(
                select(Annotation.task_id).where(
                    Annotation.project_id == project_id,
                    Annotation.task_id.in_(tasks),
                    Annotation.flagged.is_(True),
                    Annotation.deleted_at.is_(None),
                )
            )
        )
    for page in pages(client, project_id, sorted(tasks)):
        for remote in page:
            number = remote["id"]
            there.add(number)
            answered = because is None and number in still_flagged
            with store.begin() as session:
                before = session.get_one(Task, (project_id, number)).overlap_before or int(remote["overlap"])
            # What an expert has said needs no further answer, however many the project wants.
            overlap = given_back(before, remote, mode) if answered else before
            labelled = is_done(remote, overlap, mode)
            for row in _marked(remote):
                _show_again(store, client, project_id, row)
            _set(client, remote, overlap, labelled)
            with store.begin() as session:
                task = session.get_one(Task, (project_id, number))
                task.is_labeled, task.overlap_before = labelled, None
                why = because or ("answered" if answered else "not flagged any more")
                referred.take_back(session, project_id, number, why)
    with store.begin() as session:
        for number in sorted(tasks - there):
            referred.take_back(session, project_id, number, "deleted")
    log.info("tasks are with the expert no more", project=project_id, tasks=len(tasks))


def _set(client: Client, remote: Remote, overlap: int, is_labeled: bool) -> None:
    if (remote["overlap"], remote["is_labeled"]) != (overlap, is_labeled):
        client.update_task(remote["id"], overlap=overlap, is_labeled=is_labeled)


def _taken(remote: Remote, mode: str) -> int:
    """How many annotations take a place of the overlap, whoever asks for the task.

    A skip takes one for everybody only where Label Studio ignores it; to who skipped, it may be offered again.
    """
    rows = [row for row in remote["annotations"] if not row["ground_truth"]]
    return sum(mode == "IGNORE_SKIPPED" or not row["was_cancelled"] for row in rows)


# what the expert is not to see


def _marked(remote: Remote) -> list[dict[str, Any]]:
    return [row for row in remote["predictions"] if row["model_version"] == MARK]


def _hide_suggestion(store: Store, client: Client, project_id: int, remote: Remote, published: int | None) -> None:
    """Give the task exactly one prediction with our mark: that of the published order, else an empty one.

    Never by deleting one: annotations name it as what was shown, and a submit that does would fail.
    """
    current = None if published is None else queue_name(published)
    marked, shown = _marked(remote), [row for row in remote["predictions"] if row["model_version"] == current]
    if shown:
        for row in marked:
            _show_again(store, client, project_id, row)
        client.update_prediction(shown[0]["id"], model_version=MARK)
    elif not marked:
        empty = {"task": remote["id"], "result": [], "score": 0.0, "model_version": MARK}
        if client.import_predictions(project_id, [empty]) != 1:
            raise LabelStudioError(f"task {remote['id']}: Label Studio did not take the mark by which experts find it")


def _show_again(store: Store, client: Client, project_id: int, row: Mapping[str, Any]) -> None:
    """Give a prediction back to the order it was made for; an empty one was made for none."""
    with store.begin() as session:
        version = session.scalars(
            select(Published.version).where(
                Published.project_id == project_id, Published.prediction_id == row["id"], Published.prediction_id > 0
            )
        ).first()
    if version is None:
        client.delete_prediction(row["id"])
    else:
        client.update_prediction(row["id"], model_version=queue_name(version))


# the tab


def _see_to_tab(store: Store, client: Client, project_id: int) -> None:
    """Find the expert's tab by its filter, whatever people call it, or make it.

    A project without any tab gets its first from the browser of whoever opens it: ours would be where all land.
    """
    tabs = client.tabs(project_id)
    if not tabs:
        return
    ours = {tab["id"] for tab in tabs if _is_ours(tab)}
    with store.begin() as session:
        if session.get_one(Project, project_id).expert_view in ours:
            return
    data: dict[str, Any] = {"title": TITLE, "filters": _FILTERS}
    if hidden := tabs[0]["data"].get("hiddenColumns"):  # else all columns are shown
        data["hiddenColumns"] = hidden
    number = min(ours) if ours else client.add_tab(project_id, data)
    with store.begin() as session:
        session.get_one(Project, project_id).expert_view = number


def _is_ours(tab: Mapping[str, Any]) -> bool:
    items: Iterable[Mapping[str, Any]] = (tab["data"].get("filters") or {}).get("items", [])
    return any(item["filter"] == _COLUMN and item["value"] == [MARK] for item in items)
