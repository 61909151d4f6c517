"""What a version keeps of its calibration per centre, who is woken by it, and where it is shown."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from backend import centres
from backend.registry import load_json
from backend.report.centres import per_centre
from backend.report.facts import gather
from backend.report.material import read
from backend.report.page import render
from backend.scored import of_version
from backend.snapshot import Snapshot, take
from backend.status import of_project
from tasks.schema import parse_label_config
from tasks.tables import Project, Task

SOUTH = "<b>South"


@pytest.fixture
def two_centres(world: Any) -> tuple[Any, Snapshot]:
    """Of the last 60 tasks, now the hold-out, version 1 says benign, 75 % surely; half of the South is malignant."""
    with world.store.begin() as session:
        for task in session.query(Task).where(Task.id > 60):
            task.fold, task.site = -1, "North" if task.id % 2 else SOUTH
            if task.id % 8 == 1 or task.id % 4 == 0:
                task.current = {"bom": ["malignant"]}
        config = session.get_one(Project, 1).label_config
    return world, take(world.store, config, 1)


def look(world: Any, taken: Snapshot) -> dict[str, Any]:
    folder = world.registry.version(1, 1)
    heads = parse_label_config(taken.label_config).heads
    centres.look(world.store, 1, folder, heads, taken, of_version(folder))
    found = centres.of_version(folder)
    assert found is not None
    return found


def test_a_centre_where_confidence_breaks_is_an_alarm(two_centres: tuple[Any, Snapshot]) -> None:
    world, taken = two_centres
    folder = world.registry.version(1, 1)
    assert centres.alarms(folder) == [] and centres.of_version(folder) is None
    found = look(world, taken)
    assert found == load_json(folder / "centres.json")
    assert (found["control"], found["labels"]) == ("bom", "hold-out")
    assert [(row["site"], row["n"], row["broken"]) for row in found["centres"]] == [
        (SOUTH, 30, True),
        ("North", 30, False),
    ]
    (alarm,) = centres.alarms(folder)
    assert alarm == (
        f"at {SOUTH} the confidence in bom does not hold: 75 % said, 50 % right on 30 hold-out labels;"
        " do not rely on it there"
    )


def test_labels_that_people_gave_at_random_count_alone_once_there_are_enough(two_centres: tuple[Any, Snapshot]) -> None:
    world, taken = two_centres
    held, nowhere = taken.folds == -1, np.zeros(len(taken.ids), dtype=bool)
    few = held & (taken.ids % 4 != 0)  # what is wrong in the South was never checked
    assert int(few.sum()) == 45
    assert look(world, replace(taken, adjudicated={"bom": few}, drawn=nowhere))["labels"] == "hold-out"
    enough = few | (held & (taken.ids % 12 == 0))
    found = look(world, replace(taken, adjudicated={"bom": enough}, drawn=nowhere))
    assert found["labels"] == "checked" and centres.alarms(world.registry.version(1, 1)) == []
    assert [(row["site"], row["n"]) for row in found["centres"]] == [(SOUTH, 20), ("North", 30)]
    # The control arm's count as well, and tasks of no centre are in none.
    drawn = ~held & (taken.ids <= 5)
    found = look(world, replace(taken, adjudicated={"bom": few | drawn}, drawn=drawn))
    assert (found["labels"], sum(row["n"] for row in found["centres"])) == ("checked", 45)


def test_status_and_report_show_it(two_centres: tuple[Any, Snapshot]) -> None:
    world, taken = two_centres
    with world.store.begin() as session:
        session.get_one(Project, 1).title = "Nodules"
    assert per_centre(read(world.store, world.registry, 1)) is None
    assert "No centre can be told apart" in render(gather(world.store, world.settings, 1))
    look(world, taken)
    shown = per_centre(read(world.store, world.registry, 1))
    assert shown is not None and [row["site"] for row in shown["centres"]] == [SOUTH, "North"]
    assert (shown["version"], shown["left_out"]) == (1, 0)
    page = render(gather(world.store, world.settings, 1))
    assert "Confidence per centre" in page and "<strong>no</strong>" in page
    assert "&lt;b&gt;South" in page and "<b>South" not in page
    model = of_project(world.store, world.settings, 1)["model"]
    assert [row["site"] for row in model["centres"]["centres"]] == [SOUTH, "North"]
