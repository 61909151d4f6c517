"""Publishing to a real Label Studio: what annotators are served, and what a kill, an admin or a draft can do to it."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from sqlalchemy import update

from demo.labelstudio import call
from demo.oracle import Annotator, duplicates, served_order_spearman, take_turns
from tasks import ledger, pace, queue, sweep
from tasks.client import LabelStudioError
from tasks.mask_codec import Patch, encode_masks
from tasks.queue import Planned
from tasks.ranking.interleave import queue_key
from tasks.tables import Annotation, Published, Version

Make = Callable[..., Any]
TRUTH = {f"{number}.png": {"bom": ("malignant",)} for number in range(20)}


def plan(s: Any, tasks: Sequence[int], text: str = "Why now: because.") -> list[Planned]:
    return [Planned(task, "ranked", 0.5, text, s.choices(bom="malignant") + s.why(text)) for task in tasks]


def trained(s: Any, number: int) -> None:
    with s.store.begin() as session:
        session.add(
            Version(project_id=s.project, number=number, created_at=0, seconds=1, schema="", labels=0, metrics={})
        )


def publish(s: Any, number: int, tasks: Sequence[int], **more: Any) -> None:
    trained(s, number)
    queue.enter(s.store, s.project, number, plan(s, tasks, **more))
    queue.push(s.store, s.client, s.project, number)
    queue.flip(s.store, s.client, s.project, number)


def numbers(s: Any, version: int) -> dict[int, int | None]:
    with s.store.begin() as session:
        rows = session.query(Published).filter_by(project_id=s.project, version=version).order_by(Published.rank)
        return {row.task_id: row.prediction_id for row in rows}


def there(s: Any) -> list[tuple[int, str, float]]:
    """Label Studio's predictions: task, version, score."""
    rows = call(s.users[s.admin], "GET", "/api/predictions", params={"project": s.project})
    return sorted((row["task"], row["model_version"], row["score"]) for row in rows)


def annotators(s: Any) -> list[Annotator]:
    return [Annotator(session, s.project, s.schema, str(user)) for user, session in s.users.items()]


def test_two_annotators_are_served_the_published_order_and_its_refill(scene: Make) -> None:
    s = scene(10)
    s.reconcile()
    ids = s.ids()
    order = [ids[place] for place in (7, 2, 9, 4, 0, 5)]
    publish(s, 1, order[:4])
    assert queue.open_head(s.store, s.project) == order[:4]
    first, second = annotators(s)
    assert len(list(take_turns([first, second], TRUTH, 2))) == 2

    # Tasks known already keep their place; new ones come after all others.
    assert queue.enter(s.store, s.project, 1, plan(s, [order[5], order[0], order[4]][::-1])) == 2
    assert queue.push(s.store, s.client, s.project, 1) == 2
    assert len(list(take_turns([first, second], TRUTH, 4))) == 4
    visits = sorted(first.visits + second.visits, key=lambda visit: visit.served_at)
    assert [visit.task for visit in visits] == order
    keys = {task: queue_key(rank) for rank, task in enumerate(order)}
    assert served_order_spearman(visits, {"v1-queue-order": keys}) == {"v1-queue-order": 1.0}
    assert duplicates(visits) == []
    assert [visit.prediction for visit in visits] == list(numbers(s, 1).values())

    s.reconcile()
    s.assert_equal()
    assert queue.open_head(s.store, s.project) == []
    shown = {entry.task_id: entry.body["shown"] for entry in s.ledger() if entry.event == "created"}
    assert {task: (said["version"], said["rank"]) for task, said in shown.items()} == {
        task: (1, rank) for rank, task in enumerate(order)
    }
    assert shown[order[0]]["results"] == plan(s, order)[0].shown


def test_an_interrupted_push_sends_nothing_twice(scene: Make) -> None:
    s = scene(3)
    s.reconcile()
    trained(s, 1)
    queue.enter(s.store, s.project, 1, plan(s, s.ids()))
    assert queue.push(s.store, s.client, s.project, 1) == 3
    sent, known = there(s), numbers(s, 1)
    assert None not in known.values()
    with s.store.begin() as session:  # killed after the import, before its numbers were kept
        session.execute(update(Published).values(prediction_id=None))
    assert queue.push(s.store, s.client, s.project, 1) == 0
    assert there(s) == sent
    assert numbers(s, 1) == known
    for _ in range(2):  # killed between the flip and whatever comes next
        queue.flip(s.store, s.client, s.project, 1)
    assert [entry.body for entry in s.ledger()] == [{"version": 1, "tasks": 3}]
    assert s.client.project(s.project)["model_version"] == "v1-queue-order"


def test_a_task_deleted_meanwhile_costs_the_others_nothing(scene: Make) -> None:
    s = scene(3)
    s.reconcile()
    one, two, three = s.ids()
    trained(s, 1)
    queue.enter(s.store, s.project, 1, plan(s, [one, two, three]))
    s.act("delete_tasks", [two])  # and no reconcile since
    assert queue.push(s.store, s.client, s.project, 1) == 2
    assert [task for task, _, _ in there(s)] == [one, three]
    queue.flip(s.store, s.client, s.project, 1)
    assert queue.guard(s.store, s.client, s.project) == []


def test_what_the_label_config_cannot_show_is_left_out_and_planned_anew(scene: Make) -> None:
    s = scene(2)
    s.reconcile()
    one, two = s.ids()
    trained(s, 1)
    bad = Planned(two, "ranked", 0.5, "", s.choices(bom="nonsense"))
    queue.enter(s.store, s.project, 1, [*plan(s, [one]), bad])
    assert queue.push(s.store, s.client, s.project, 1) == 1
    assert [row[0] for row in there(s)] == [one]
    assert queue.enter(s.store, s.project, 1, plan(s, [one, two])) == 1  # the place is free again


def test_a_prediction_that_label_studio_would_drop_is_refused_by_name(scene: Make) -> None:
    s = scene(2)
    s.reconcile()
    one, two = s.ids()
    trained(s, 1)
    elsewhere = [region | {"to_name": "nowhere"} for region in s.choices(bom="malignant")]
    queue.enter(s.store, s.project, 1, [*plan(s, [one]), Planned(two, "ranked", 0.5, "", elsewhere)])
    with pytest.raises(LabelStudioError, match=f"task {two}: .*"):
        queue.push(s.store, s.client, s.project, 1)
    assert there(s) == []


def test_a_version_of_nothing_takes_nothing_over(scene: Make) -> None:
    s = scene(1)
    s.reconcile()
    publish(s, 1, s.ids())
    publish(s, 2, [])
    assert s.store.project(s.project).published == 1
    assert queue.guard(s.store, s.client, s.project) == []


def test_guard_repairs_what_makes_the_queue_random(scene: Make) -> None:
    s = scene(3)
    s.reconcile()
    one, two, three = s.ids()
    assert queue.guard(s.store, s.client, s.project) == []
    publish(s, 1, [two, three, one])
    assert queue.guard(s.store, s.client, s.project) == []

    s.client.update_project(s.project, sampling="Sequential sampling", model_version="")
    assert queue.guard(s.store, s.client, s.project) == [
        "sampling was 'Sequential sampling', set back to 'Uncertainty sampling'",
        "model_version was '', set back to 'v1-queue-order'",
    ]
    remote = s.client.project(s.project)
    assert (remote["sampling"], remote["model_version"]) == ("Uncertainty sampling", "v1-queue-order")

    # Deleted predictions leave the version's name on the project, which then orders nothing.
    s.act("delete_tasks_predictions", [two, three])
    sent = "predictions of v1-queue-order were deleted in Label Studio and are sent again"
    assert queue.guard(s.store, s.client, s.project) == [f"2 {sent}"]
    s.client.delete_version(s.project, "v1-queue-order")
    assert queue.guard(s.store, s.client, s.project) == [
        f"3 {sent}",
        "model_version was None, set back to 'v1-queue-order'",
    ]
    expected = [(task, "v1-queue-order", queue_key(rank)) for rank, task in enumerate([two, three, one])]
    assert there(s) == sorted(expected)
    assert queue.guard(s.store, s.client, s.project) == []
    assert annotators(s)[0].next_task()["id"] == two


def test_sweep_keeps_what_somebody_can_still_submit(scene: Make) -> None:
    s = scene(4)
    s.reconcile()
    one, two, three, four = s.ids()
    publish(s, 1, [one, two])
    (held,) = (annotator for annotator in annotators(s) if annotator.name == str(s.annotator))
    opened = held.next_task()
    assert opened["id"] == one
    publish(s, 2, [three, four])
    publish(s, 3, [three, four])

    # Locks last longer than the versions were replaced; the annotator's screen still names version 1.
    assert sweep.sweep(s.store, s.client, s.project, lock_hours=1.0) == []
    annotation = held.submit(opened, {"bom": ("benign",)}, 5.0)
    s.reconcile()
    assert s.ledger()[-1].body["shown"]["version"] == 1
    assert s.annotation(annotation).parent_prediction == numbers(s, 1)[one]

    # Version 1 stays for another user's draft, which our token's user does not see; version 2 goes.
    s.draft(two, s.annotator)
    assert sweep.sweep(s.store, s.client, s.project, lock_hours=0.0) == [2]
    assert s.client.model_versions(s.project) == {"v1-queue-order": 2, "v3-queue-order": 2}
    s.submit(two, s.choices(bom="benign"), s.annotator, parent_prediction=numbers(s, 1)[two])
    s.act("delete_tasks_annotations", [two])  # and its draft, which lived on
    assert sweep.sweep(s.store, s.client, s.project, lock_hours=0.0) == [1]
    assert s.client.model_versions(s.project) == {"v3-queue-order": 2}
    assert sweep.sweep(s.store, s.client, s.project, lock_hours=0.0) == []
    s.reconcile()
    s.assert_equal()
    assert s.annotation(annotation).parent_prediction == numbers(s, 1)[one]  # although Label Studio forgot it
    with s.store.begin() as session:
        assert ledger.verify(session, s.project) == []


def test_refill_is_wanted_while_three_unlocked_tasks_an_annotator_are_left(scene: Make) -> None:
    s = scene(8)
    s.reconcile()
    ids = s.ids()
    publish(s, 1, ids[:6])
    with s.store.begin() as session:
        for number in ids:
            session.merge(s.task(number)).pixels = "digest"
    assert s.client.members() == 2
    # One works, but both members may hold a task: 3 + 2 are enough.
    assert not pace.wants_refill(s.store, s.client, s.project)
    s.submit(ids[0], s.choices(bom="benign"), s.annotator)
    s.reconcile()
    assert len(queue.open_head(s.store, s.project)) == 5
    assert not pace.wants_refill(s.store, s.client, s.project)
    s.submit(ids[1], s.choices(bom="benign"), s.annotator)
    s.reconcile()
    assert pace.wants_refill(s.store, s.client, s.project)
    queue.enter(s.store, s.project, 1, plan(s, [ids[6]]))
    assert not pace.wants_refill(s.store, s.client, s.project)
    s.skip(ids[2], s.admin)  # a second annotator: 3 x 2 + 2
    s.reconcile()
    assert pace.annotators(s.store, s.project) == 2
    assert pace.wants_refill(s.store, s.client, s.project)
    queue.enter(s.store, s.project, 1, plan(s, [ids[7]]))
    assert not pace.wants_refill(s.store, s.client, s.project)  # nothing is left to publish


def test_the_head_is_three_batches_or_hours_of_work(scene: Make) -> None:
    s = scene(0)
    assert pace.annotators(s.store, s.project) == 1
    assert pace.head_size(s.store, s.project, batch=10, hours=2.0) == 30
    now, past = time.time(), time.time() - 25 * 3600
    rows = [(1, 30.0, now), (1, 10.0, now), (1, 20.0, now), (2, 0.1, now), (3, 5.0, past), (4, None, now)]
    with s.store.begin() as session:
        for number, (user, seconds, moment) in enumerate(rows):
            created = time.strftime("%Y-%m-%dT%H:%M:%S.000000+00:00", time.gmtime(moment))
            session.add(
                Annotation(
                    project_id=s.project,
                    id=number,
                    task_id=1,
                    completed_by=user,
                    created_at=created,
                    updated_at=created,
                    lead_time=seconds,
                    was_cancelled=False,
                    result=[],
                    labels={},
                    origin="person",
                )
            )
    # 180 and 3600 tasks an hour: a lead time below a second counts as one.
    assert pace.head_size(s.store, s.project, batch=10, hours=2.0) == 2 * (180 + 3600)
    assert pace.head_size(s.store, s.project, batch=10_000, hours=2.0) == 30_000
    assert pace.annotators(s.store, s.project) == 3


def test_names_never_meet() -> None:
    assert queue.queue_name(7) == "v7-queue-order"
    assert queue.live_name(7) == "v7-live"
    assert queue.live_name(None) == "v0-live"
    names = (queue.queue_name(12), queue.live_name(3), "Second Look", "v9", "v9-queue-order (old)")
    assert [queue.number_of(name) for name in names] == [12, 3, 0, 0, 0]


MASKS = """<View>
  <Image name="image" value="$image"/>
  <TextArea name="why" toName="image" model_role="why" editable="false" maxSubmissions="1"/>
  <BrushLabels name="tissue" toName="image"><Label value="tumour"/><Label value="stroma"/></BrushLabels>
  <PolygonLabels name="gland" toName="image"><Label value="gland"/></PolygonLabels>
  <RectangleLabels name="look" toName="image" model_role="look"><Label value="look here"/></RectangleLabels>
</View>"""


def test_masks_are_published_and_forgotten_when_their_label_is_gone(scene: Make) -> None:
    s = scene(3, MASKS)
    s.reconcile()
    one, two, three = s.ids()
    trained(s, 1)

    def drawn(*classes: str) -> list[dict[str, Any]]:
        tissue, gland = np.zeros((2, 20, 30), dtype=np.bool_), np.zeros((1, 20, 30), dtype=np.bool_)
        for name in classes:
            (gland[0] if name == "gland" else tissue[("tumour", "stroma").index(name)])[4:9, 5:20] = True
        masks, scores = {"tissue": tissue, "gland": gland}, {"tissue": [0.9, 0.8], "gland": [0.7]}
        return encode_masks(s.schema, 20, 30, masks, scores, [Patch(0, 0, 16, 16, 0.6)]) + s.why("Look.")

    shown = {one: drawn("tumour", "gland"), two: drawn("tumour", "stroma", "gland"), three: drawn()}
    queue.enter(s.store, s.project, 1, [Planned(task, "ranked", 0.5, "", results) for task, results in shown.items()])
    s.set_project(label_config=MASKS.replace('<Label value="stroma"/>', ""))
    assert queue.push(s.store, s.client, s.project, 1) == 2
    assert set(numbers(s, 1)) == {one, three}
    rows = call(s.users[s.admin], "GET", "/api/predictions", params={"project": s.project})
    assert {row["task"]: row["result"] for row in rows} == {one: shown[one], three: shown[three]}
