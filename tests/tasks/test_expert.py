"""Flagged tasks on a real Label Studio: with the expert alone, until somebody settles them."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select

from demo.labelstudio import call
from tasks import expert, pace, queue, reopen
from tasks.client import Client, LabelStudioError
from tasks.expert import MARK, TITLE
from tasks.labels import Settled, settle
from tasks.referred import with_expert
from tasks.tables import Annotation, Published

Make = Callable[..., Any]
HIDDEN = {"explore": ["tasks:inner_id"], "labeling": ["tasks:id"]}


def open_data_manager(s: Any) -> None:
    """As a browser does when somebody opens a project without tabs."""
    filters: dict[str, Any] = {"conjunction": "and", "items": []}
    s.client.add_tab(s.project, {"title": "Default", "filters": filters, "hiddenColumns": HIDDEN})


def look(s: Any) -> list[str]:
    """As the worker does; returns what was repaired."""
    s.reconcile()
    expert.look(s.store, s.client, s.project)
    repaired: list[str] = queue.guard(s.store, s.client, s.project)
    if (version := s.store.project(s.project).published) is not None:
        queue.push(s.store, s.client, s.project, version)
        reopen.reopen(s.store, s.client, s.project, version)
    reopen.close(s.store, s.client, s.project)
    return repaired


def waiting(s: Any) -> set[int]:
    with s.store.begin() as session:
        return set(session.scalars(with_expert(s.project)))


def tab(s: Any) -> dict[str, Any]:
    (found,) = [row for row in s.client.tabs(s.project) if row["data"]["title"] == TITLE]
    assert found["id"] == s.store.project(s.project).expert_view
    return dict(found)


def listed(s: Any) -> list[int]:
    """What the expert's tab shows."""
    return [row["id"] for row in call(s.users[s.admin], "GET", "/api/tasks", params={"view": tab(s)["id"]})["tasks"]]


def displayed(s: Any, user: int) -> dict[str, Any] | None:
    """What "Label Tasks As Displayed" serves in the expert's tab."""
    body = {"project": str(s.project), "ordering": [], "filters": tab(s)["data"]["filters"]}
    where = {"id": "next_task", "project": s.project}
    response = s.users[user].post("/api/dm/actions", params=where, json=body)
    return None if response.status_code == 404 else dict(response.json())


def versions(s: Any, task: int) -> list[str]:
    """The `model_version` of the task's predictions."""
    (page,) = s.client.tasks_by_id(s.project, [task])
    return [row["model_version"] for row in page[0]["predictions"]]


def flag(s: Any, task: int, user: int | None = None, **more: Any) -> int:
    return int(s.submit(task, s.choices(bom="benign", flag="expert"), user, **more))


def settled(s: Any, task: int) -> Settled:
    with s.store.begin() as session:
        rows = session.scalars(select(Annotation).where(Annotation.project_id == s.project, Annotation.task_id == task))
        return settle(rows, s.task(task).current)


def story(s: Any, task: int) -> list[str]:
    return [row.body.get("because", row.event) for row in s.ledger() if row.task_id == task]


def test_a_flagged_task_is_the_experts_alone_until_answered(scene: Make) -> None:
    s = scene(4)
    one, two, three, four = s.ids()
    open_data_manager(s)
    s.reconcile()
    s.publish(1, [two, one, three])
    _, annotator = s.people()
    task = annotator.next_task()
    assert task["id"] == two
    flagged = flag(s, two, s.annotator, parent_prediction=task["predictions"][0]["id"])
    assert look(s) == []
    assert waiting(s) == {two} and listed(s) == [two]
    assert tab(s)["data"]["hiddenColumns"] == HIDDEN  # as the tab that was there
    assert s.there()[two] == (1, False)
    assert versions(s, two) == [MARK]
    assert settled(s, two).flagged
    assert queue.open_head(s.store, s.project) == [one, three]
    assert queue.waiting(s.store, s.project, 1) == 2
    assert not s.reconcile().full  # our own changes are no news
    s.assert_equal()
    assert look(s) == []
    assert story(s, two) == ["created", "referred"]

    # Nobody is served it in the queue, not even when nothing else is left; who flagged it never.
    other = s.submit(four, s.choices(bom="benign"), s.admin)
    admin, _ = s.people()
    served = []
    while (task := admin.next_task()) is not None:
        served.append(task["id"])
        admin.submit(task, {"bom": ("benign",)}, 3.0)
    assert served == [one, three]
    assert annotator.next_task() is None
    assert displayed(s, s.annotator) is None
    assert look(s) == []
    assert pace.short_of_tasks(s.store, s.client, s.project) == []
    assert pace.waiting_for_others(s.store, s.project) == []
    assert s.there()[two] == (1, False)

    screen = displayed(s, s.admin)
    assert screen is not None and screen["id"] == two
    assert screen["predictions"] == []  # no suggestion
    answer = s.submit(two, s.choices(bom="malignant", foci="rim"), s.admin)
    assert displayed(s, s.admin) is None
    assert look(s) == []
    assert waiting(s) == set() and listed(s) == []
    assert s.there()[two] == (1, True)
    assert s.task(two).overlap_before is None
    assert versions(s, two) == ["v1-queue-order"]
    assert settled(s, two).labels["bom"] == ("malignant",)
    assert story(s, two) == ["created", "referred", "created", "answered"]
    assert s.annotation(flagged).parent_prediction is not None  # Label Studio still names what was shown
    with s.store.begin() as session:
        row = session.get_one(Published, (s.project, 1, two))
    assert row.prediction_id == s.annotation(flagged).parent_prediction
    assert look(s) == []
    s.assert_equal()

    # Without the answer the flag asks again, and where the flag goes it is like any other task.
    s.delete(answer, s.admin)
    look(s)
    assert waiting(s) == {two} and listed(s) == [two]
    s.delete(flagged, s.annotator)
    look(s)
    assert waiting(s) == set()
    assert s.there()[two] == (1, False)
    assert queue.open_head(s.store, s.project) == [two]
    assert s.annotation(other).origin == "person"
    assert look(s) == []
    assert story(s, two)[4:] == ["deleted", "referred", "deleted", "not flagged any more"]


def test_what_settles_nothing_leaves_the_task_with_the_expert(scene: Make) -> None:
    s = scene(3)
    one, two, three = s.ids()
    open_data_manager(s)
    s.reconcile()
    s.publish(1, [one, two])
    with s.store.begin() as session:
        shown = dict(session.execute(select(Published.task_id, Published.prediction_id)).all())
    # The third was in no order.
    flags = {task: flag(s, task, s.annotator, parent_prediction=shown.get(task)) for task in (one, two, three)}
    look(s)
    assert listed(s) == [one, two, three]
    assert versions(s, three) == [MARK]

    s.skip(one, s.admin)
    flag(s, two, s.admin)  # the expert passes it on
    s.edit(flags[three], s.choices(bom="malignant", flag="expert"), s.annotator)
    assert {labelled for _, labelled in s.there().values()} == {True}  # so Label Studio takes it
    assert look(s) == []
    assert waiting(s) == {one, two, three} and listed(s) == [one, two, three]
    assert s.there() == {one: (1, False), two: (2, False), three: (1, False)}

    s.edit(flags[one], s.choices(bom="benign"), s.annotator)
    s.edit(flags[two], s.choices(bom="benign"), s.annotator)  # the other flag is left
    s.edit(flags[three], s.choices(bom="benign"), s.annotator)
    assert look(s) == []
    assert waiting(s) == {two}
    assert s.there() == {one: (1, True), two: (2, False), three: (1, True)}
    assert versions(s, one) == ["v1-queue-order"]
    assert versions(s, three) == []
    assert settled(s, three).labels["bom"] == ("benign",)
    assert look(s) == []

    # A new order leaves it out, and one that was made before the flag loses it.
    s.push(2, [two, one])
    assert versions(s, two) == [MARK]
    queue.flip(s.store, s.client, s.project, 2)
    s.act("delete_tasks_predictions", [two])
    assert look(s) == []
    assert versions(s, two) == [MARK] and listed(s) == [two]
    s.act("delete_tasks", [two])
    look(s)
    assert waiting(s) == set()
    assert story(s, two)[-1] == "deleted"


def test_several_annotations_wanted_and_tasks_reopened_for_review(scene: Make) -> None:
    s = scene(1)
    s.client.update_project(s.project, maximum_annotations=2)
    (fresh,) = s.ids()
    row = {"data": {"image": "/images/9.png", "patient": "p9", "bom": "", "file": "9"}}
    annotated = [row | {"annotations": [{"result": s.choices(bom="benign"), "completed_by": s.admin}]}]
    call(s.users[s.admin], "POST", f"/api/projects/{s.project}/import", json=annotated)
    (imported,) = [task for task in s.ids() if task != fresh]
    s.patch(imported, overlap=1, is_labeled=True)
    open_data_manager(s)
    s.reconcile()
    s.publish(1, [fresh, imported])
    before = s.there()
    assert before == {fresh: (2, False), imported: (1, False)}
    flags = [flag(s, task, s.annotator) for task in (fresh, imported)]
    look(s)
    assert waiting(s) == {fresh, imported}
    assert s.there() == {fresh: (1, False), imported: (1, False)}
    admin, annotator = s.people()
    assert admin.next_task() is None and annotator.next_task() is None
    for number in flags:
        s.delete(number, s.annotator)
    look(s)
    assert waiting(s) == set()
    assert s.there() == before
    assert queue.open_head(s.store, s.project) == [fresh, imported]

    # An expert's word needs no second one.
    flag(s, fresh, s.annotator)
    look(s)
    s.submit(fresh, s.choices(bom="malignant"), s.admin)
    look(s)
    assert s.there()[fresh] == (2, True)


class Dying(Client):
    """Its process dies at its first write, which arrives."""

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        done = super()._call(method, path, **arguments)
        if method != "GET":
            raise KeyboardInterrupt
        return done


def test_a_kill_after_any_write_changes_nothing(scene: Make, label_studio: Any) -> None:
    s = scene(2)
    one, two = s.ids()
    open_data_manager(s)
    s.reconcile()
    s.publish(1, [one])
    flags = [flag(s, task, s.annotator) for task in (one, two)]

    def kills() -> int:
        s.reconcile()
        for number in range(20):
            try:
                expert.look(s.store, Dying(label_studio.url, label_studio.token), s.project)
            except KeyboardInterrupt:
                continue
            return number
        raise AssertionError("it never ends")

    assert kills() == 5  # a prediction and a task each, and the tab
    assert look(s) == []
    assert waiting(s) == {one, two} and listed(s) == [one, two]
    assert [versions(s, task) for task in (one, two)] == [[MARK], [MARK]]

    s.submit(one, s.choices(bom="malignant"), s.admin)
    s.edit(flags[1], s.choices(bom="malignant"), s.annotator)
    assert kills() == 2  # the predictions: the answer and the edit have closed the tasks
    assert look(s) == []
    assert waiting(s) == set() and listed(s) == []
    assert s.there() == {one: (1, True), two: (1, True)}
    assert [versions(s, task) for task in (one, two)] == [["v1-queue-order"], []]
    assert story(s, one) == ["created", "referred", "created", "answered"]
    s.reconcile()
    s.assert_equal()


def test_the_tab_is_found_again_made_again_and_taken_away(scene: Make) -> None:
    s = scene(2)
    one, two = s.ids()
    s.reconcile()
    flag(s, one, s.annotator)
    look(s)
    assert s.client.tabs(s.project) == []  # ours would be the page on which everybody lands
    open_data_manager(s)
    look(s)
    first = tab(s)["id"]
    call(s.users[s.admin], "PATCH", f"/api/dm/views/{first}/", json={"data": {**tab(s)["data"], "title": "Prof. B"}})
    s.set_project(expert_view=None)
    look(s)
    assert [row["data"]["title"] for row in s.client.tabs(s.project)] == ["Default", "Prof. B"]
    assert s.store.project(s.project).expert_view == first
    s.client.delete_tab(first)
    flag(s, two, s.annotator)
    look(s)
    assert tab(s)["id"] != first and listed(s) == [one, two]

    expert.withdraw(s.store, s.client, s.project)
    assert [row["data"]["title"] for row in s.client.tabs(s.project)] == ["Default"]
    assert waiting(s) == set()
    assert s.there() == {one: (1, True), two: (1, True)}
    assert story(s, one)[-1] == "disconnected"
    expert.withdraw(s.store, s.client, s.project)
    assert settled(s, one).flagged
    look(s)  # connected again
    assert listed(s) == [one, two]
    with pytest.raises(LabelStudioError):
        s.client.delete_tab(first)
