"""Labelled tasks on a real Label Studio: opened for an order, served in it and closed again, their annotations kept."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from demo.labelstudio import call
from tasks import pace, queue, reopen
from tasks.client import Client
from tasks.tables import Job

Make = Callable[..., Any]


def annotated(s: Any, by: Sequence[int | None]) -> list[int]:
    """Import one task for each user, with an annotation of theirs; None: without any."""
    rows = [
        {
            "data": {"file": f"{n}.png", "image": f"/images/{n}.png", "patient": f"p{n}", "bom": ""},
            "annotations": [{"result": s.choices(bom="benign"), "completed_by": user}] if user else [],
        }
        for n, user in enumerate(by)
    ]
    before = set(s.ids())
    call(s.users[s.admin], "POST", f"/api/projects/{s.project}/import", json=rows)
    return [task for task in s.ids() if task not in before]


def look(s: Any) -> int:
    """As the worker does, whenever something has changed; returns how many were closed."""
    s.reconcile()
    if (version := s.store.project(s.project).published) is not None:
        reopen.reopen(s.store, s.client, s.project, version)
    return reopen.close(s.store, s.client, s.project)


def held(s: Any) -> list[int]:
    return [task for task in s.ids() if s.task(task).overlap_before is not None]


def annotations(s: Any) -> dict[int, dict[str, Any]]:
    pages = s.client.tasks_by_id(s.project, s.ids())
    rows = [row for page in pages for task in page for row in task["annotations"]]
    return {row["id"]: row | {"created_ago": ""} for row in rows}


def test_reopened_tasks_are_served_in_their_place_and_closed_by_their_review(scene: Make) -> None:
    s = scene(0)
    one, two, three, four, five, six = annotated(s, [s.admin, s.admin, s.admin, s.annotator, None, None])
    before = annotations(s)
    s.reconcile()
    untouched = s.there()
    order = [three, five, four, one]  # two stays labelled, six waits behind the head
    assert s.publish(1, order) == 3
    assert queue.open_head(s.store, s.project) == order
    assert held(s) == [one, three, four]
    assert {task: s.there()[task][1] for task in s.ids()} == {
        one: False, two: True, three: False, four: False, five: False, six: False
    }  # fmt: skip
    assert not s.reconcile().full  # our own changes are no news
    s.assert_equal()

    # Each is served what the other annotated, in the one order.
    admin, annotator = s.people()
    served = []
    for person in (annotator, admin, annotator):
        task = person.next_task()
        served.append(task["id"])
        person.submit(task, {"bom": ("malignant",)}, 3.0)
    assert served == [three, five, one]
    assert look(s) == 2
    assert queue.open_head(s.store, s.project) == [four]
    task = admin.next_task()
    assert task["id"] == four
    admin.submit(task, {"bom": ("benign",)}, 3.0)
    assert look(s) == 1
    assert held(s) == []
    assert s.there() == untouched | {five: (1, True)}
    assert {number: row for number, row in annotations(s).items() if number in before} == before
    assert not s.reconcile().full
    s.assert_equal()
    assert [entry.body["tasks"] for entry in s.ledger() if entry.event == "reopened"] == [[three, four, one]]
    assert look(s) == 0


class Dying(Client):
    """Its process dies at the second change of a task: before it, or before its answer is known."""

    def __init__(self, base_url: str, token: str, arrives: bool) -> None:
        super().__init__(base_url, token)
        self.arrives, self.left = arrives, 1

    def update_task(self, task_id: int, **fields: Any) -> bool:
        if self.left == 0 and not self.arrives:
            raise KeyboardInterrupt
        done = super().update_task(task_id, **fields)
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return done


@pytest.mark.parametrize("arrives", [False, True])
def test_a_kill_leaves_nothing_open_for_good(scene: Make, label_studio: Any, arrives: bool) -> None:
    s = scene(0)
    ids = annotated(s, [s.admin] * 4)
    s.reconcile()
    closed = s.there()
    s.push(1, ids[:3])
    with pytest.raises(KeyboardInterrupt):
        reopen.reopen(s.store, Dying(label_studio.url, label_studio.token, arrives), s.project, 1)
    assert held(s) == ids[:3]
    assert [labelled for _, labelled in s.there().values()] == [False, not arrives, True, True]
    # Whoever comes next goes on with the version, or gives it up: nothing publishes it.
    assert reopen.reopen(s.store, s.client, s.project, 1) == (1 if arrives else 2)
    queue.flip(s.store, s.client, s.project, 1)
    assert queue.open_head(s.store, s.project) == ids[:3]
    assert reopen.close(s.store, s.client, s.project) == 0

    assert s.publish(2, ids[3:]) == 1
    with pytest.raises(KeyboardInterrupt):
        reopen.close(s.store, Dying(label_studio.url, label_studio.token, arrives), s.project)
    assert reopen.close(s.store, s.client, s.project) == 2
    assert held(s) == ids[3:]
    assert s.there() == closed | {ids[3]: (1, False)}
    assert reopen.close_all(s.store, s.client, s.project) == 1
    assert s.there() == closed
    assert not s.reconcile().full
    s.assert_equal()
    assert reopen.close_all(s.store, s.client, s.project) == 0


def test_what_is_about_to_be_published_stays_open_and_what_never_will_be_does_not(scene: Make) -> None:
    s = scene(0)
    ids = annotated(s, [s.admin] * 2)
    s.reconcile()
    s.publish(1, ids[:1])
    with s.store.begin() as session:
        session.add(job := Job(project_id=s.project, kind="cycle", state="running", version=2, created_at=0.0))
    s.push(2, ids[1:])
    reopen.reopen(s.store, s.client, s.project, 2)
    assert look(s) == 0
    assert held(s) == ids
    with s.store.begin() as session:
        session.merge(job).state = "failed"
    assert look(s) == 1
    assert held(s) == ids[:1]


def test_a_submit_on_a_task_that_left_the_order_arrives_and_counts(scene: Make) -> None:
    s = scene(0)
    one, two = annotated(s, [s.admin] * 2)
    s.reconcile()
    s.publish(1, [one])
    _, annotator = s.people()
    screen = annotator.next_task()
    assert s.publish(2, [two]) == 1
    assert look(s) == 1
    assert s.there()[one] == (1, True)
    answer = annotator.submit(screen, {"bom": ("malignant",)}, 3.0)
    assert look(s) == 0
    assert s.there()[one] == (1, True)
    assert s.annotation(answer).origin == "person"
    assert s.ledger()[-1].body["shown"]["version"] == 1
    assert annotator.next_task()["id"] == two


def test_what_is_no_review_leaves_the_task_open(scene: Make) -> None:
    s = scene(0)
    one, two, three = annotated(s, [s.admin] * 3)
    s.submit(two, s.choices(bom="malignant"))  # by hand, and twice by the same user, before we came
    s.reconcile()
    assert {row.origin for row in (s.annotation(number) for number in annotations(s))} == {"imported", "earlier"}
    s.publish(1, [one, two, three])
    assert s.there() == {one: (1, False), two: (2, False), three: (1, False)}

    s.skip(one, s.annotator)  # an import takes no place of the overlap: Label Studio takes the skip for the last word
    s.act("predictions_to_annotations", [two], s.admin)
    assert {task for task, (_, labelled) in s.there().items() if labelled} == {one}
    look(s)
    # Its annotations took every place of the second: open, and served to nobody.
    assert s.there() == {one: (1, False), two: (3, False), three: (1, False)}
    assert held(s) == [one, two, three]
    assert reopen.reopen(s.store, s.client, s.project, 1) == 0

    # Label Studio counts people, not annotations, and would leave the task open after its review.
    admin, annotator = s.people()
    assert admin.next_task() is None
    screen = annotator.next_task()
    assert screen["id"] == two
    annotator.submit(screen, {"bom": ("benign",)}, 3.0)
    assert not s.there()[two][1]
    assert look(s) == 1
    assert s.there()[two] == (1, True)
    assert annotator.next_task()["id"] == three


def test_somebody_closes_deletes_or_empties_what_we_hold_open(scene: Make) -> None:
    s = scene(0)
    one, two, three, four = annotated(s, [s.admin] * 4)
    s.reconcile()
    s.publish(1, [one, two, three, four])
    s.patch(one, is_labeled=True)
    s.act("delete_tasks", [two])
    s.act("delete_tasks_annotations", [three])
    s.client.update_project(s.project, maximum_annotations=2)
    assert look(s) == 1
    (said,) = queue.guard(s.store, s.client, s.project)
    assert "wants 2 annotations a task (maximum_annotations)" in said and "the 2 reopened tasks" in said
    # What leaves our hands gets back the overlap that it had.
    assert s.there() == {one: (2, False), three: (1, False), four: (2, False)}
    assert held(s) == [one, four]
    assert queue.open_head(s.store, s.project) == [one, three, four]
    s.client.update_project(s.project, maximum_annotations=1)
    assert look(s) == 0
    assert queue.guard(s.store, s.client, s.project) == []
    assert s.there() == {one: (1, False), three: (1, False), four: (1, False)}
    assert reopen.close_all(s.store, s.client, s.project) == 2
    assert s.there() == {one: (1, True), three: (1, False), four: (1, True)}


def test_the_head_is_filled_for_each_annotator_with_what_the_others_annotated(scene: Make) -> None:
    s = scene(0)
    ids = annotated(s, [s.admin] * 9 + [s.annotator] * 9)
    s.reconcile()
    with s.store.begin() as session:
        for number in ids:
            session.merge(s.task(number)).pixels = "digest"
    s.publish(1, ids[:9])
    assert pace.short_of_tasks(s.store, s.client, s.project) == []  # nobody is known to work here
    s.skip(ids[8], s.annotator)
    look(s)
    # 3 x 1 + 2 for the one who works; both, once both do. What was skipped is left for the other.
    assert queue.open_head(s.store, s.project, person=s.annotator) == ids[:8]
    assert pace.short_of_tasks(s.store, s.client, s.project) == []
    s.skip(ids[17], s.admin)
    look(s)
    assert queue.open_head(s.store, s.project, person=s.admin) == []
    assert pace.short_of_tasks(s.store, s.client, s.project) == [s.admin]
    assert pace.wants_refill(s.store, s.client, s.project)
    s.publish(1, ids[9:])
    assert pace.short_of_tasks(s.store, s.client, s.project) == []
    assert queue.open_head(s.store, s.project, person=s.admin) == ids[9:17]
    # Nothing is left that could be published for either.
    for task in ids[2:9]:
        s.submit(task, s.choices(bom="benign"), s.annotator)
    look(s)
    assert pace.short_of_tasks(s.store, s.client, s.project) == []


def test_an_older_annotation_stays_on_record_until_somebody_edits_it(scene: Make) -> None:
    s = scene(1)
    (task,) = s.ids()
    annotation = s.submit(task, s.choices(bom="malignant"))
    s.reconcile()
    s.publish(1, [task])
    s.reconcile(full=True)
    assert (s.annotation(annotation).origin, s.annotation(annotation).trained_in) == ("earlier", None)
    assert look(s) == 0
    s.edit(annotation, s.choices(bom="malignant"), s.annotator)
    assert look(s) == 1
    assert s.annotation(annotation).origin == "person"
    assert s.there()[task] == (1, True)
