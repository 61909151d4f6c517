"""The head of the queue, laid out from a version's files and the store."""

import re
import time
from pathlib import Path

from scipy.spatial.distance import cdist

from backend import embeddings, plan
from tasks import pace
from tasks.tables import Annotation, Project, Task


def test_ranked_tasks_come_in_the_order_of_their_score(world) -> None:
    world.extend(60)
    ranked = [row for row in world.published() if row.kind == "ranked"]
    assert len(ranked) > 30
    assert [row.score for row in ranked] == sorted((row.score for row in ranked), reverse=True)
    assert {row.task_id for row in ranked[:10]} <= set(range(1, 25))  # the model contradicts the record most there


def test_every_slot_kind_takes_part_and_shows_what_it_should(world) -> None:
    world.extend(100)
    rows = world.published()
    assert {row.kind for row in rows} == {"ranked", "control", "blind", "holdout"}
    for row in rows:
        shown = {result["from_name"] for result in row.shown}
        blind = row.kind in ("blind", "holdout")
        assert shown == ({"why"} if blind else {"why", "bom"})
        assert ("Model:" not in row.why) == blind
        assert "Recorded: benign" in row.why
        assert (row.task_id > 100) == (row.kind == "holdout")
        assert (row.score is None) == (row.kind != "ranked")


def test_a_refill_continues_the_order_and_repeats_nothing(world) -> None:
    world.extend(30)
    first = world.published()
    world.extend(30)
    rows = world.published()
    assert [row.task_id for row in rows[:30]] == [row.task_id for row in first]
    assert [row.rank for row in rows] == list(range(60))
    assert len({row.task_id for row in rows}) == 60


def test_labelled_tasks_are_left_out_and_named_as_most_like(world) -> None:
    for task in range(1, 21):
        world.annotate(task)
    world.extend(120)
    rows = world.published()
    assert not {row.task_id for row in rows} & set(range(1, 21))
    ranked = [row for row in rows if row.kind == "ranked"]
    assert all(re.search(r"Most like: task (\d+) malignant(, \d+ malignant){2}\.", row.why) for row in ranked)
    assert not any("Most like" in row.why for row in rows if row.kind in ("blind", "holdout"))


def test_the_nearest_reviewed_cases_are_pictured_where_the_label_config_has_a_place(world) -> None:
    for task in range(1, 21):
        world.annotate(task)
    with world.store.begin() as session:
        session.get_one(Task, (1, 3)).pixels = None  # its image changed: nobody knows what it looks like now
        session.get_one(Task, (1, 4)).image = "s3://bucket/4.png"
        for number in range(5, 21):
            session.get_one(Task, (1, number)).image = f"/data/{number}.png"
        project = session.get_one(Project, 1)
        place = '<HyperText name="similar" value="$similar" model_role="similar"/></View>'
        project.label_config = project.label_config.replace("</View>", place)
    world.extend(120)
    points = embeddings.load(world.registry.backbones(1, 1), 0, [f"digest{number}" for number in range(1, 121)])
    distance = cdist(points, points, "cosine")
    shown = {row.task_id: row for row in world.published()}
    assert {row.similar is None for row in shown.values() if row.kind in ("blind", "holdout")} == {True}
    for task, row in shown.items():
        if row.kind in ("ranked", "control"):
            nearest = sorted(
                (number for number in range(1, 21) if number != 3), key=lambda n: distance[task - 1, n - 1]
            )
            found = re.findall(r"<b>(\d+) malignant</b>", row.similar)
            assert [int(number) for number in found] == nearest[:3]
            assert f"task {found[0]} malignant, {found[1]} malignant, {found[2]} malignant." in row.why
            pictures = re.findall(r'src="([^"]+)"', row.similar)
            assert pictures == [
                f"/data/{number}.png" if number > 4 else "/tasks/4/resolve/?fileuri=czM6Ly9idWNrZXQvNC5wbmc="
                for number in nearest[:3]
                if number > 2  # the others have no address that a browser could ask for
            ]


def test_without_a_place_for_pictures_none_are_made(world) -> None:
    world.annotate(1)
    world.extend(50)
    assert {row.similar for row in world.published()} == {None}


def test_the_queue_ends_where_the_tasks_end(world) -> None:
    assert world.extend(10 * 120) <= 120
    assert world.extend(10) == 0 or len(world.published()) <= 120


def test_with_nothing_learnt_coverage_alone_orders_and_nothing_is_suggested(make_world, tmp_path: Path) -> None:
    world = make_world(tmp_path, learnt=False)
    world.extend(40)
    rows = world.published()
    assert len(rows) == 40
    assert all({result["from_name"] for result in row.shown} == {"why"} for row in rows)


def test_preview_shows_what_is_published_and_what_would_follow(world) -> None:
    world.extend(10)
    with world.store.begin() as session:
        session.get_one(Project, 1).published = 1
    rows = plan.preview(world.store, world.registry, world.settings, 1, 30)
    assert [row["place"] for row in rows] == list(range(1, 31))
    assert [row["published"] for row in rows] == [True] * 10 + [False] * 20
    assert len(world.published()) == 10  # it only looks
    assert all(0 <= row["uncertainty"] <= 1 and 0 <= row["disagreement"] <= 1 for row in rows)


def test_the_same_state_gives_the_same_head(make_world, tmp_path: Path) -> None:
    heads = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        world = make_world(tmp_path / name)
        world.extend(50)
        heads.append([(row.task_id, row.kind) for row in world.published()])
    assert heads[0] == heads[1]


def test_a_task_whose_image_changed_waits_for_the_next_version(world) -> None:
    with world.store.begin() as session:
        session.get_one(Task, (1, 1)).pixels = "another"
        session.get_one(Task, (1, 2)).pixels = None
    world.extend(120)
    assert not {1, 2} & {row.task_id for row in world.published()}


def test_what_everybody_skipped_is_not_published_again(world) -> None:
    with world.store.begin() as session:
        session.get_one(Task, (1, 1)).cancelled = 1
    world.extend(120)
    assert 1 not in {row.task_id for row in world.published()}


def test_labelled_tasks_that_nobody_reviewed_compete_with_the_others(make_world, tmp_path: Path) -> None:
    heads = []
    for name, origins in (("none", []), ("old", ["imported", "earlier", "machine"])):
        (tmp_path / name).mkdir()
        world = make_world(tmp_path / name)
        for task in range(1, 61):
            if origins:
                world.annotate(task, origins[task % len(origins)], by=9)
        world.extend(60)
        heads.append(world.published())
    # The tasks are the same, and so is their order; of the labels on record the annotations' are shown.
    assert [row.task_id for row in heads[0]] == [row.task_id for row in heads[1]]
    shown = {row.task_id: row.why for row in heads[1] if row.task_id <= 60}
    assert shown
    for task, why in shown.items():
        assert ("Recorded: benign" in why) == (task % 3 == 2)  # what a machine made is no record
        assert ("Recorded: malignant" in why) == (task % 3 != 2)


def test_reviewed_tasks_are_done_also_while_they_are_held_open(world) -> None:
    world.annotate(1)
    world.annotate(2, "imported")
    world.annotate(3, "empty")
    with world.store.begin() as session:
        for number in (1, 2):
            row = session.get_one(Task, (1, number))
            row.is_labeled, row.overlap_before = False, 1
        session.get_one(Task, (1, 4)).is_labeled = True  # by hand: there is nothing to review
    world.extend(120)
    assert {row.task_id for row in world.published()} & {1, 2, 3, 4} == {2}


def test_nobody_is_offered_what_they_annotated(world) -> None:
    now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
    world.annotate(100, by=7, at=now)  # 7 works here
    for task in range(1, 31):
        world.annotate(task, "earlier", by=7)
    for task in range(31, 61):
        world.annotate(task, "earlier", by=8)
    while world.extend(120):
        pass
    assert not {row.task_id for row in world.published()} & set(range(1, 31))  # nobody else is here to review them
    world.annotate(99, by=8, at=now)
    assert world.extend(5, person=7) == 0  # all of the others' work is published already
    assert world.extend(5, person=8) == 5
    assert {row.task_id for row in world.published()[-5:]} <= set(range(1, 31))


def test_when_only_somebody_else_could_review_an_alarm_says_so(world) -> None:
    now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
    with world.store.begin() as session:
        session.get_one(Project, 1).published = 1
    assert pace.waiting_for_others(world.store, 1) == []  # nobody works here yet
    world.annotate(1, by=7, at=now)
    for task in range(2, 121):
        world.annotate(task, "earlier", by=7)
    assert world.extend(120) == 0
    (alarm,) = pace.waiting_for_others(world.store, 1)
    assert alarm.startswith("119 tasks wait for somebody else")
    with world.store.begin() as session:
        other = session.get_one(Annotation, (1, 2))
        other.completed_by, other.origin, other.created_at = 8, "person", now
    assert pace.waiting_for_others(world.store, 1) == []  # there is somebody now
