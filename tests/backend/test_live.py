"""Answers to /predict, from what a version left behind."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from backend.live import KEPT, Live
from backend.scored import Scored
from tasks.tables import Project, Task, Version


def ask(world: Any, *numbers: int) -> list[dict[str, Any]]:
    tasks = [{"id": number, "data": {"image": f"{number}.png", "bom": "benign"}} for number in numbers]
    return Live(world.store, world.settings).predict(1, tasks)


def shown(answer: dict[str, Any]) -> set[str]:
    return {result["from_name"] for result in answer["result"]}


def test_known_tasks_get_their_suggestion_under_the_live_name(world) -> None:
    answers = ask(world, 1, 50)
    assert [answer["model_version"] for answer in answers] == ["v1-live"] * 2
    assert all(shown(answer) == {"why", "bom"} for answer in answers)
    chosen = answers[0]["result"][0]
    assert chosen["value"] == {"choices": ["malignant"]} and 0.98 < chosen["score"] < 1


def test_the_hold_out_is_blind_here_too(world) -> None:
    assert shown(ask(world, 110)[0]) == {"why"}


def test_an_image_that_cannot_be_read_abstains_and_costs_the_others_nothing(world) -> None:
    answers = ask(world, 1, 9999, 2)
    assert [shown(answer) for answer in answers] == [{"why", "bom"}, {"why"}, {"why", "bom"}]


def test_before_the_first_model_everything_abstains(world) -> None:
    with world.store.begin() as session:
        session.get_one(Project, 1).version = None
    assert ask(world, 1) == [{"result": [], "score": 0.0, "model_version": "v0-live"}]


def test_a_version_without_heads_abstains(make_world, tmp_path: Path) -> None:
    assert shown(ask(make_world(tmp_path, learnt=False), 1)[0]) == {"why"}


def test_a_new_version_is_noticed_without_a_restart(world) -> None:
    live = Live(world.store, world.settings)
    task = [{"id": 1, "data": {"image": "1.png"}}]
    before = live.predict(1, task)[0]
    old = world.registry.version(1, 1)
    new = world.registry.version(1, 2)
    scored = Scored.load(old / "predictions.npz")
    turned = {"bom": np.ascontiguousarray(scored.probabilities["bom"][:, ::-1])}
    replace(scored, probabilities=turned).save(new / "predictions.npz")
    (new / "model.json").write_text((old / "model.json").read_text())
    with world.store.begin() as session:
        session.add(Version(project_id=1, number=2, created_at=0, seconds=1, schema="", labels=1, metrics={}))
        session.get_one(Project, 1).version = 2
    after = live.predict(1, task)[0]
    assert after["model_version"] == "v2-live"
    assert before["result"][0]["value"] != after["result"][0]["value"]


def test_thousands_of_tasks_get_one_answer_each(world) -> None:
    assert len(ask(world, *(list(range(1, 101)) * 30))) == 3000


def test_another_image_under_a_known_number_is_not_answered_for_the_old_one(world) -> None:
    live = Live(world.store, world.settings)
    moved = {"id": 1, "data": {"image": "other.png", "bom": "benign"}}
    assert shown(live.predict(1, [moved])[0]) == {"why"}
    with world.store.begin() as session:
        session.get_one(Task, (1, 2)).pixels = "another digest"
        session.get_one(Task, (1, 3)).deleted_at = 1.0  # and Label Studio gave its number to a new task
    assert [shown(answer) for answer in ask(world, 2, 3, 4)] == [{"why"}, {"why"}, {"why", "bom"}]


def test_after_a_change_of_the_label_config_the_heads_that_are_still_there_answer(world) -> None:
    live, task = Live(world.store, world.settings), [{"id": 1, "data": {"image": "1.png"}}]
    config = world.store.project(1).label_config
    before = live.predict(1, task)[0]["result"]
    swapped = config.replace('<Choice value="benign"/><Choice value="malignant"/>', "{}").format(
        '<Choice value="malignant"/><Choice value="benign"/>'
    )
    added = config.replace("<TextArea", '<Choices name="new" toName="image"><Choice value="a"/></Choices><TextArea')
    gone = config.replace('name="bom"', 'name="other"')
    for changed, expected in ((swapped, before[0]["value"]), (added, before[0]["value"]), (gone, None)):
        assert changed != config
        world.store.register_project(1, changed)
        answer = live.predict(1, task)[0]
        values = {result["from_name"]: result["value"] for result in answer["result"]}
        assert values.get("bom") == expected and "why" in values


def test_only_a_few_projects_stay_in_memory(world) -> None:
    live = Live(world.store, world.settings)
    files = world.registry.version(1, 1)
    for project in range(1, KEPT + 3):
        world.store.register_project(project, world.store.project(1).label_config)
        folder = world.registry.version(project, 1)
        if project > 1:
            shutil.copytree(files, folder)
        with world.store.begin() as session:
            session.get_one(Project, project).version = 1
        assert shown(live.predict(project, [{"id": 1, "data": {"image": "1.png"}}])[0]) == {"why", "bom"}
        live.predict(1, [{"id": 1, "data": {"image": "1.png"}}])  # asked most often
    assert len(live._loaded) == KEPT and 1 in live._loaded
