"""The field with the similar cases on the real Label Studio: filled, refilled, emptied, and nothing else touched."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from demo.labelstudio import call
from tasks import panel, queue
from tasks.client import Client, LabelStudioError
from tasks.queue import Planned
from tasks.similar import MARK
from tasks.tables import Task, Version

Make = Callable[..., Any]
CONFIG = """<View>
  <Image name="image" value="$image" model_group="$patient"/>
  <HyperText name="similar" value="$like" model_role="similar" inline="true"/>
  <TextArea name="why" toName="image" model_role="why" editable="false" maxSubmissions="1"/>
  <Choices name="bom" toName="image" model_current="$bom"><Choice value="benign"/><Choice value="malignant"/></Choices>
  <Choices name="foci" toName="image" choice="multiple"><Choice value="none"/><Choice value="rim"/></Choices>
</View>"""


@pytest.fixture
def s(scene: Make) -> Any:
    """A project of six tasks that were imported with an empty field, and read."""
    made = scene(0, CONFIG)
    made.add(*(row(number) for number in range(6)))
    made.reconcile()
    with made.store.begin() as session:
        for task in session.query(Task).all():
            task.pixels, task.fold = f"digest{task.id}", 1
    return made


def row(number: int, **more: str) -> dict[str, str]:
    return {"file": f"{number}.png", "image": f"/images/{number}.png", "patient": f"p{number}", "bom": "benign"} | {
        "like": "",
        **more,
    }


def html(text: str) -> str:
    return f"{MARK}>{text}</div>"


def publish(s: Any, version: int, similar: Mapping[int, str | None]) -> None:
    """As a cycle does."""
    about = {"created_at": 0, "seconds": 1, "schema": "", "labels": 0, "metrics": {}}
    with s.store.begin() as session:
        session.add(Version(project_id=s.project, number=version, **about))
    planned = [
        Planned(task, "blind" if cases is None else "ranked", None, "", s.why("Because."), cases)
        for task, cases in similar.items()
    ]
    queue.enter(s.store, s.project, version, planned)
    panel.hide(s.store, s.client, s.project, version)
    queue.push(s.store, s.client, s.project, version)
    queue.flip(s.store, s.client, s.project, version)


def fields(s: Any) -> dict[int, str]:
    """What the field of each task holds in Label Studio."""
    query = {"project": s.project, "fields": "all", "resolve_uri": "false", "page_size": 100}
    return {
        row["id"]: row["data"].get("like") for row in call(s.users[s.admin], "GET", "/api/tasks", params=query)["tasks"]
    }


class Counting(Client):
    """Counts what it writes; with `deadly`, dies right after the write of that number."""

    def __init__(self, client: Client, deadly: int = 0) -> None:
        self.__dict__.update(client.__dict__)
        self.writes, self.deadly = 0, deadly

    def update_task(self, task_id: int, **fields: Any) -> bool:
        there = super().update_task(task_id, **fields)
        self.writes += 1
        if self.writes == self.deadly:
            raise KeyboardInterrupt
        return there


def test_the_published_order_is_filled_first_first_and_nothing_else_is_noticed(
    s: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(panel, "A_LOOK", 2)
    ids = s.ids()
    order = [ids[place] for place in (4, 0, 2)]
    publish(s, 1, {task: html(f"like {task}") for task in order} | {ids[5]: None})
    s.reconcile()
    before = len(s.ledger()), len(s.ledger(about_tasks=True))
    counting = Counting(s.client)
    assert panel.fill(s.store, counting, s.project) == []
    assert [task for task, held in fields(s).items() if held] == sorted(order[:2])
    panel.fill(s.store, counting, s.project)
    assert fields(s) == {task: html(f"like {task}") if task in order else "" for task in ids}
    panel.fill(s.store, counting, s.project)
    assert counting.writes == 3  # the third look had nothing to do

    s.reconcile()
    s.assert_equal()
    assert (len(s.ledger()), len(s.ledger(about_tasks=True))) == before
    assert all(s.task(task).pixels == f"digest{task}" and s.task(task).fold == 1 for task in ids)
    s.submit(order[0], s.choices(bom="malignant"))
    s.reconcile()
    assert s.ledger()[-1].body["to"]["bom"] == ["malignant"]
    panel.fill(s.store, counting, s.project)
    assert fields(s)[order[0]] == html(f"like {order[0]}")  # what its annotator saw stays
    assert counting.writes == 3


def test_killed_between_a_write_and_its_note_the_next_look_goes_on(s: Any) -> None:
    ids = s.ids()[:3]
    publish(s, 1, {task: html(f"like {task}") for task in ids})
    with pytest.raises(KeyboardInterrupt):
        panel.fill(s.store, Counting(s.client, deadly=2), s.project)
    counting = Counting(s.client)
    panel.fill(s.store, counting, s.project)
    assert counting.writes == 1  # only what was not there yet
    assert [fields(s)[task] for task in ids] == [html(f"like {task}") for task in ids]
    s.reconcile()
    s.assert_equal()


def test_a_task_shown_blind_is_emptied_before_it_can_be_served_and_one_that_left_after(s: Any) -> None:
    blind, left, stays = s.ids()[:3]
    publish(s, 1, {task: html("old") for task in (blind, left, stays)})
    panel.fill(s.store, s.client, s.project)
    publish(s, 2, {stays: html("new"), blind: None})
    assert (fields(s)[blind], fields(s)[left], fields(s)[stays]) == ("", html("old"), html("old"))
    panel.fill(s.store, s.client, s.project)
    assert (fields(s)[blind], fields(s)[left], fields(s)[stays]) == ("", "", html("new"))


def test_what_others_write_meanwhile_is_kept_and_found_by_the_next_reconcile(s: Any) -> None:
    task = s.ids()[0]
    publish(s, 1, {task: html("like")})
    s.reconcile()
    s.patch(task, data=row(0, bom="malignant", extra="theirs"))
    panel.fill(s.store, s.client, s.project)
    s.reconcile()
    s.assert_equal()
    assert s.task(task).data == row(0, bom="malignant", extra="theirs", like=html("like"))
    assert s.ledger(about_tasks=True)[-1].body["to"] == {str(task): {"bom": ["malignant"]}}


def test_a_field_that_holds_something_of_theirs_is_left_alone_and_said(s: Any) -> None:
    theirs, ours = s.ids()[:2]
    s.patch(theirs, data=row(0, like="<b>Follow-up in May</b>"))
    publish(s, 1, {theirs: html("like"), ours: html("like")})
    panel.fill(s.store, s.client, s.project)  # the change was not read yet
    s.reconcile()
    (alarm,) = panel.fill(s.store, s.client, s.project)
    assert "'like', which holds something else in 1 open tasks" in alarm
    assert str(theirs) in alarm
    assert (fields(s)[theirs], fields(s)[ours]) == ("<b>Follow-up in May</b>", html("like"))


def test_one_task_that_cannot_be_written_keeps_no_other_waiting(s: Any) -> None:
    refused, deleted, good = s.ids()[:3]
    publish(s, 1, {task: html("like") for task in (refused, deleted, good)})
    call(s.users[s.admin], "DELETE", f"/api/tasks/{deleted}/")

    class Refusing(Counting):
        def update_task(self, task_id: int, **fields: Any) -> bool:
            if task_id == refused:
                raise LabelStudioError("PATCH: 400 not this one", 400)
            return super().update_task(task_id, **fields)

    panel.fill(s.store, Refusing(s.client), s.project)
    assert (fields(s)[refused], fields(s)[good]) == ("", html("like"))


def test_without_a_place_for_them_nothing_is_asked(scene: Make) -> None:
    made = scene(2)
    made.reconcile()
    publish(made, 1, {task: html("like") for task in made.ids()})
    before = [made.task(task).data for task in made.ids()]
    assert panel.fill(made.store, made.client, made.project) == []
    made.reconcile()
    assert [made.task(task).data for task in made.ids()] == before
    assert panel.fill(made.store, made.client, 999) == []


def test_an_import_needs_the_field_be_it_empty(s: Any) -> None:
    """What the documentation says of Label Studio."""
    lacking = row(7)
    del lacking["like"]
    with pytest.raises(LabelStudioError, match="key is expected in task data"):
        s.add(lacking)
    assert len(s.add(row(7))) == 1
