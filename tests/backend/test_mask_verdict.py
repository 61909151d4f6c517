"""Champion and challenger where a project is masks alone, beside Dice counted pixel by pixel."""

from pathlib import Path

import numpy as np
import pytest

from backend import regions, verdict
from backend.evaluation.gate import Verdict
from backend.replay.label_studio import PROJECT
from tasks.tables import Project, Task
from tests.backend.squares import SCHEMA, HandDrawn, moved, scope


@pytest.fixture
def world(tmp_path: Path) -> HandDrawn:
    """Eighty images, all of which carry a mask: a person's in every other one."""
    made = HandDrawn(tmp_path)
    for task in range(2, 81, 2):
        made.label_studio.answer(task, [*made.drawn(task), scope("image")])
    made.look()
    return made


def held(world: HandDrawn) -> list[int]:
    return [task for task, fold in world.folds().items() if fold == -1]


def reach(world: HandDrawn, before: np.ndarray, after: np.ndarray, level: float = 0.95) -> Verdict:
    """Of version 2 that draws `after`, where version 1 draws `before` and is in force."""
    world.leave(1, before)
    taken, marked, scored = world.leave(2, after, in_force=False)
    return verdict.reach(world.store, world.registry, PROJECT, 2, SCHEMA, taken, scored, level, marked)


def counted(drawn: np.ndarray, truth: np.ndarray, tasks: list[int]) -> float:
    found = []
    for task in tasks:
        one, two = drawn[task - 1], truth[task - 1]
        found.append(2 * sum(a and b for a, b in zip(one.flat, two.flat, strict=True)) / (one.sum() + two.sum()))
    return float(np.mean(found))


def test_a_challenger_that_draws_worse_is_refused(world: HandDrawn) -> None:
    good, bad = moved(world.masks, 1), moved(world.masks, 5)
    found = reach(world, good, bad)
    tasks = held(world)
    assert (found.takes_over, found.by, found.against, found.figure) == (False, "test", 1, "dice")
    assert found.before == pytest.approx(counted(good, world.masks, tasks))
    assert found.after == pytest.approx(counted(bad, world.masks, tasks))
    assert found.n == found.groups == len(tasks) >= 10
    assert found.adjudicated == sum(task % 2 == 0 for task in tasks)
    assert "v1 stays in force" in found.reason and found.reason.startswith("Dice of mask ")


def test_one_that_draws_better_takes_over(world: HandDrawn) -> None:
    found = reach(world, moved(world.masks, 5), moved(world.masks, 1))
    assert found.takes_over and found.by == "test" and found.p_worse == 0 and found.best == 2


def test_only_images_count_that_both_drew_as_they_are_now_and_neither_trained_on(world: HandDrawn) -> None:
    tasks = held(world)
    with world.store.begin() as session:  # one of the hold-out, and a trained one, are of one patient when v1 is made
        trained = next(number for number in range(1, 81) if number not in tasks)
        session.get_one(Task, (PROJECT, tasks[0])).group = session.get_one(Task, (PROJECT, trained)).group
    world.leave(1, moved(world.masks, 1))
    folder = world.registry.version(PROJECT, 1)
    (folder / "regions" / f"{tasks[1]}.json").unlink()
    regions.keep(folder, tasks[2], "another image", [], {}, np.zeros((1, 1), dtype=np.float32))
    taken, marked, scored = world.leave(2, moved(world.masks, 5), in_force=False)
    found = verdict.reach(world.store, world.registry, PROJECT, 2, SCHEMA, taken, scored, 0.95, marked)
    assert found.n == len(tasks) - 3
    fewer = found.takes_over  # at least ten groups are needed
    assert fewer == (len(tasks) - 3 < 10)


def test_without_masks_in_the_model_in_force_there_is_nothing_to_test(world: HandDrawn) -> None:
    found = reach(world, moved(world.masks, 1), moved(world.masks, 1))
    assert found.takes_over and found.p_worse == 0.5
    with world.store.begin() as session:
        session.get_one(Project, PROJECT).version = None
    taken, marked, scored = world.leave(3, world.masks, in_force=False)
    first = verdict.reach(world.store, world.registry, PROJECT, 3, SCHEMA, taken, scored, 0.95, marked)
    assert first.takes_over and "the first model" in first.reason
    empty = scored.under([])
    with world.store.begin() as session:
        session.get_one(Project, PROJECT).version = 1
    lost = verdict.reach(world.store, world.registry, PROJECT, 3, SCHEMA, taken, empty, 0.95, marked)
    assert not lost.takes_over and "too few marked images of mask are left" in lost.reason
