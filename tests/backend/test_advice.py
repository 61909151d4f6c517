"""The advice of a project beside arrays made by hand: what the queue would find, and how earlier forecasts did."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from backend.evaluation import forecast
from backend.report import stopping
from backend.report.material import read
from backend.scored import Scored
from tasks import queue
from tasks.tables import Annotation, Project, Published, Task, Version

WRONG = range(1, 31)  # malignant in truth, benign on record


def answer(world: Any, tasks: range | list[int], at: str) -> None:
    with world.store.begin() as session:
        for task in tasks:
            label = "malignant" if task in WRONG else "benign"
            told = {"created_at": at, "updated_at": at, "lead_time": 10.0, "result": [], "was_cancelled": False}
            told |= {"completed_by": 7, "labels": {"bom": [label]}, "origin": "person"}
            session.add(Annotation(project_id=1, id=task, task_id=task, **told))


def add_version(world: Any, number: int, created_at: float, refused: bool = False) -> None:
    """One that says what version 1 does."""
    Scored.load(world.registry.version(1, 1) / "predictions.npz").save(
        world.registry.version(1, number) / "predictions.npz"
    )
    with world.store.begin() as session:
        same = {"seconds": 0.0, "schema": "", "labels": 120, "metrics": {}}
        verdict = {"takes_over": not refused}
        session.add(Version(project_id=1, number=number, created_at=created_at, verdict=verdict, **same))
        if not refused:
            session.get_one(Project, 1).version = number


def found(world: Any) -> dict[str, Any]:
    material = read(world.store, world.registry, 1)
    tuned = world.settings.tuned(material.project.extra_params)
    value = stopping.advice(material, tuned, queue.open_head(world.store, 1))
    assert value is not None
    return value


def arrays(world: Any, done: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    malignant = Scored.load(world.registry.version(1, 1) / "predictions.npz").probabilities["bom"][:, 1]
    reviewed = np.isin(np.arange(1, 121), done)
    return malignant, reviewed, reviewed & np.isin(np.arange(1, 121), list(WRONG))


def as_list(row: forecast.Estimate) -> list[float]:
    return [row.value, row.low, row.high]


def test_what_is_published_comes_first_and_then_the_ranking(world: Any) -> None:
    world.settings = world.settings.model_copy(update={"random_slots": False})
    world.extend(10)
    with world.store.begin() as session:
        session.get_one(Project, 1).published = 1
        ahead = [row.task_id for row in session.scalars(select(Published).order_by(Published.rank))]
        session.get_one(Task, (1, ahead[0])).is_labeled = True  # waits no more
    answer(world, [ahead[0], *range(50, 60)], "2026-01-02T10:00:00Z")
    material = read(world.store, world.registry, 1)
    scored = material.scored(1)
    assert scored is not None and scored.scores is not None
    base = scored.scores.base(stopping.weights_of("auto", recorded=True))
    rest = [task for task in range(1, 101) if task not in {*ahead, *range(50, 60)}]
    expected = ahead[1:] + sorted(rest, key=lambda task: (-base[task - 1], task))
    suspicion, reviewed, wrong = arrays(world, [ahead[0], *range(50, 60)])
    said = forecast.finds(suspicion, reviewed, wrong, np.array(expected) - 1, 2)
    value = found(world)["wrong_labels"]
    assert value["said"] is None and [row["reviews"] for row in value["next"]] == [89]
    assert value["next"][0]["found"] == as_list(said[0].found)
    assert value["next"][0]["rate_left"] == as_list(said[0].rate_left)


def test_random_slots_bring_the_hold_out_in_and_nothing_twice(world: Any) -> None:
    (last,) = [row for row in found(world)["wrong_labels"]["next"] if row["reviews"] > 100]
    assert last["reviews"] == 120 and last["rate_left"] == [0, 0, 0]


def test_earlier_forecasts_are_judged_by_what_came(world: Any) -> None:
    answer(world, range(1, 21), "2026-01-02T10:00:00Z")
    with world.store.begin() as session:
        session.get_one(Version, (1, 1)).created_at = seconds("2026-01-03")
    answer(world, range(21, 51), "2026-01-04T10:00:00Z")
    add_version(world, 2, seconds("2026-01-05"))
    (row,) = stopping.past(read(world.store, world.registry, 1))
    suspicion, reviewed, wrong = arrays(world, list(range(1, 21)))
    said = forecast.among(suspicion, reviewed, wrong, np.arange(20, 50), 2)
    assert row == {
        **{"version": 1, "reviews": 30, "forecast": vars(said), "came": 10.0, "covered": said.low <= 10 <= said.high},
        **{"of": "wrong_labels", "name": "wrong labels"},
    }


def test_a_learning_curve_of_four_versions_forecasts_and_is_judged(world: Any) -> None:
    answer(world, range(101, 121), "2026-01-02T10:00:00Z")
    with world.store.begin() as session:  # the hold-out has both classes
        for row in session.scalars(select(Annotation).where(Annotation.id > 110)):
            row.labels = {"bom": ["malignant"]}
        session.get_one(Version, (1, 1)).created_at = seconds("2026-01-01")
    for number, day in ((2, 3), (3, 5), (4, 7)):
        answer(world, range(10 * number, 10 * number + 5), f"2026-01-{day - 1:02}T12:00:00Z")
        add_version(world, number, seconds(f"2026-01-{day:02}"))
    value = {row["figure"]: row for row in found(world)["figures"]}
    auc = value["auc"]["now"]
    done = [0, 25, 30, 35]
    expected = forecast.figure(done, [auc] * 4, [35 + 85])  # no more are left
    assert [row["then"] for row in value["auc"]["next"]] == [as_list(row) for row in expected or []]
    rows = [row for row in stopping.past(read(world.store, world.registry, 1)) if row["of"] == "auc"]
    then = (forecast.figure(done[:3], [auc] * 3, [35]) or [])[0]
    expected_row = {"version": 3, "reviews": 5, "forecast": vars(then), "came": auc, "covered": True}
    assert rows == [expected_row | {"of": "auc", "name": "AUC"}]


def seconds(day: str) -> float:
    return float(np.datetime64(day).astype("datetime64[s]").astype(int))


def test_without_labels_on_record_there_are_none_to_find(world: Any) -> None:
    with world.store.begin() as session:
        for task in session.scalars(select(Task)):
            task.current = {}
    value = found(world)
    assert value["wrong_labels"] == {
        "said": "No forecast of wrong labels: no task with a label on record was scored by a model.",
        "next": [],
    }
    finds = next(row for row in value["criteria"] if row["name"] == "finds")
    assert finds["met"] is None and "No task carries a label on record" in finds["said"]


def test_when_all_is_reviewed_nothing_is_left_to_forecast(world: Any) -> None:
    answer(world, range(1, 121), "2026-01-02T10:00:00Z")
    for number in (2, 3):
        add_version(world, number, float(number))
    value = found(world)
    assert value["wrong_labels"]["said"] == "No forecast of wrong labels: no label on record is left to review."
    assert [row["said"] for row in value["figures"]] == ["macro F1: every task is reviewed."]
    assert "No task that nobody has reviewed" in next(
        row["said"] for row in value["criteria"] if row["name"] == "uncertainty"
    )


def test_a_refused_model_is_no_plateau_and_several_in_a_row_are_one(world: Any) -> None:
    answer(world, range(101, 121), "2026-01-02T10:00:00Z")
    with world.store.begin() as session:  # the hold-out has both classes
        for row in session.scalars(select(Annotation).where(Annotation.id > 110)):
            row.labels = {"bom": ["malignant"]}

    def plateau() -> dict[str, Any]:
        return next(row for row in found(world)["criteria"] if row["name"] == "plateau")

    for number in (2, 3, 4):
        add_version(world, number, float(number))
    better = Scored.load(world.registry.version(1, 4) / "predictions.npz")
    right = {"bom": better.probabilities["bom"][:, ::-1]}
    replace(better, probabilities=right).save(world.registry.version(1, 4) / "predictions.npz")
    add_version(world, 5, 5.0, refused=True)
    assert plateau()["met"] is False and "From v2 to v4" in plateau()["said"]
    for number in (6, 7):
        add_version(world, number, float(number), refused=True)
    assert plateau()["met"] and "v4 stays in force: of 3 trainings" in plateau()["said"]


def test_imported_probabilities_have_no_plateau_to_reach(world: Any) -> None:
    with world.store.begin() as session:
        session.get_one(Project, 1).probabilities = "oof.csv"
    value = found(world)
    plateau = next(row for row in value["criteria"] if row["name"] == "plateau")
    assert plateau["met"] is None and "no model of ours" in plateau["said"]
    assert value["figures"] == [] and value["wrong_labels"]["next"]


def test_a_model_whose_files_are_gone_leaves_the_budgets(world: Any) -> None:
    (world.registry.version(1, 1) / "predictions.npz").unlink()
    world.settings = world.settings.model_copy(update={"budget_annotations": 1})
    answer(world, [1], "2026-01-02T10:00:00Z")
    value = found(world)
    assert value["stop"] and value["line"] == "Enough is reviewed. 1 of 1 annotations of the budget are made."
    assert value["wrong_labels"]["next"] == [] and value["figures"] == []


def test_before_any_model_there_is_no_advice(world: Any) -> None:
    with world.store.begin() as session:
        session.get_one(Project, 1).version = None
    assert stopping.advice(read(world.store, world.registry, 1), world.settings, []) is None


@pytest.mark.parametrize("params", [{"stop": "never"}, {"budget_hours": -1}, {"stop_uncertainty": 1}])
def test_a_setting_that_is_not_allowed_is_named(world: Any, params: dict[str, Any]) -> None:
    with world.store.begin() as session:
        session.get_one(Project, 1).extra_params = params
    with pytest.raises(ValueError, match=next(iter(params))):
        found(world)
