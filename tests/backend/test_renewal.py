"""What the published head shows of tasks whose image has changed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend import renewal
from backend.scored import score
from tasks.client import LabelStudioError
from tasks.schema import parse_label_config
from tasks.tables import Project, Published, Task


class LabelStudio:
    """Takes changed predictions."""

    def __init__(self, status: int | None = None) -> None:
        self.changed: dict[int, list[dict[str, Any]]] = {}
        self.status = status

    def update_prediction(self, prediction_id: int, *, result: list[dict[str, Any]]) -> None:
        if self.status is not None:
            raise LabelStudioError("refused", self.status)
        self.changed[prediction_id] = result


@pytest.fixture
def head(world) -> dict[str, int]:
    """The published head of 40: a task of each kind."""
    world.extend(40)
    with world.store.begin() as session:
        session.get_one(Project, 1).published = 1
        for row in session.query(Published).all():
            row.prediction_id = 1000 + row.task_id
        return {row.kind: row.task_id for row in session.query(Published).order_by(Published.rank.desc())}


def change(world, task: int, pixels: str | None = None) -> None:
    with world.store.begin() as session:
        session.get_one(Task, (1, task)).pixels = pixels


def row(world, task: int) -> Published:
    with world.store.begin() as session:
        return session.get_one(Published, (1, 1, task))


def controls(results: list[dict[str, Any]]) -> set[str]:
    return {result["from_name"] for result in results}


def test_an_answer_to_another_image_is_taken_back_once(world, head: dict[str, int]) -> None:
    client, task = LabelStudio(), head["ranked"]
    assert renewal.withdraw(world.store, client, world.settings, 1) == 0
    place = row(world, task).rank
    with world.store.begin() as session:
        session.get_one(Published, (1, 1, task)).similar = "<div>like the image before</div>"
    change(world, task)
    assert renewal.withdraw(world.store, client, world.settings, 1) == 1
    assert controls(client.changed[1000 + task]) == {"why"}
    assert "Model:" not in row(world, task).why and row(world, task).rank == place
    assert row(world, task).shown == client.changed[1000 + task]
    assert row(world, task).similar is None
    assert renewal.withdraw(world.store, LabelStudio(500), world.settings, 1) == 0  # nothing is sent again


@pytest.mark.parametrize("kind", ["blind", "holdout"])
def test_what_showed_no_answer_is_left_alone(world, head: dict[str, int], kind: str) -> None:
    change(world, head[kind])
    assert renewal.withdraw(world.store, LabelStudio(500), world.settings, 1) == 0


def test_labelled_tasks_keep_what_their_annotator_saw(world, head: dict[str, int]) -> None:
    change(world, head["ranked"])
    world.annotate(head["ranked"])
    assert renewal.withdraw(world.store, LabelStudio(500), world.settings, 1) == 0


def test_an_order_made_elsewhere_needs_no_images(world, head: dict[str, int]) -> None:
    change(world, head["ranked"])
    with world.store.begin() as session:
        session.get_one(Project, 1).probabilities = "elsewhere.csv"
    assert renewal.withdraw(world.store, LabelStudio(500), world.settings, 1) == 0


def test_a_prediction_that_was_deleted_is_changed_in_the_store_alone(world, head: dict[str, int]) -> None:
    change(world, head["ranked"])
    assert renewal.withdraw(world.store, LabelStudio(404), world.settings, 1) == 1
    assert controls(row(world, head["ranked"]).shown) == {"why"}


def test_a_refusal_is_no_success(world, head: dict[str, int]) -> None:
    change(world, head["ranked"])
    with pytest.raises(LabelStudioError):
        renewal.withdraw(world.store, LabelStudio(500), world.settings, 1)
    assert "bom" in controls(row(world, head["ranked"]).shown)


@pytest.mark.parametrize(("malignant", "reason"), [(0.97, "they disagree"), (0.45, "the model is unsure")])
def test_the_new_image_is_answered_in_its_old_place(
    world, head: dict[str, int], malignant: float, reason: str, tmp_path: Path
) -> None:
    with world.store.begin() as session:
        config = session.get_one(Project, 1).label_config
    tasks = np.array([head["ranked"], head["control"], head["blind"], 9999])
    members = {"bom": np.tile(np.array([1 - malignant, malignant], dtype=np.float32), (1, 4, 1))}
    recorded = {"bom": np.tile(np.array([1, 0], dtype=np.float32), (4, 1))}
    pixels = np.array(["another"] * 4)
    said = score(tasks, pixels, parse_label_config(config).heads, [(np.arange(4), members)], recorded, "entropy")
    client = LabelStudio()
    assert renewal.show_anew(world.store, client, world.settings, 1, said, tmp_path) == 2
    assert client.changed.keys() == {1000 + head["ranked"], 1000 + head["control"]}
    ticked = next(result for result in client.changed[1000 + head["ranked"]] if result["from_name"] == "bom")
    assert ticked["score"] == pytest.approx(max(malignant, 1 - malignant))
    assert f"Why now: {reason}." in row(world, head["ranked"]).why
    assert "random check" in row(world, head["control"]).why
