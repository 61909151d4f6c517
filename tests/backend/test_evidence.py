"""What the reviews have shown, on the small project of conftest: all labels on record say benign."""

import pytest
from sqlalchemy import select

from backend import evidence
from backend.evaluation import control
from backend.evaluation.control import Arm
from backend.report.material import read
from tasks.tables import Annotation, Project, Published


def of(world):
    return evidence.of_project(read(world.store, world.registry, 1))


def answer(world, row: Published, label: str) -> None:
    with world.store.begin() as session:
        session.add(
            Annotation(
                project_id=1,
                id=row.task_id,
                task_id=row.task_id,
                completed_by=7,
                created_at="2026-01-02",
                updated_at="2026-01-02",
                was_cancelled=False,
                parent_prediction=row.prediction_id,
                result=[],
                labels={"bom": [label]},
                origin="person",
            )
        )


@pytest.fixture
def reviewed(world):
    """Everything published is reviewed: the first thirty tasks are malignant, and so wrong on record."""
    world.extend(80)
    with world.store.begin() as session:
        session.get_one(Project, 1).published = 1
        for row in session.scalars(select(Published)):
            row.prediction_id = row.rank + 1
    for row in world.published():
        answer(world, row, "malignant" if row.task_id <= 30 else "benign")
    return world


def test_the_evidence_counts_what_was_reviewed(reviewed) -> None:
    found = of(reviewed)
    rows = reviewed.published()
    wrong = [row for row in rows if row.task_id <= 30]
    drawn = [row for row in rows if row.kind in ("control", "blind")]
    arm = Arm(len(drawn), sum(row.task_id <= 30 for row in drawn))
    assert found["reviewed"] == 80 and found["wrong_found"] == len(wrong)
    low, high = control.at_random(arm, 80)
    assert (
        found["line"] == f"80 reviewed, {len(wrong)} wrong labels found; at random it would have been {low} to {high}"
    )
    assert found["drawn_at_random"]["share_wrong"] == list(control.rate(arm))
    ranked = [row for row in rows if row.kind == "ranked"]
    saved = control.labels_saved(Arm(len(ranked), sum(row.task_id <= 30 for row in ranked)), arm)
    assert found["labels_saved"]["saved"] == saved.saved
    estimate = found["wrong_labels"]
    assert estimate["found"] == len(wrong)
    assert estimate["low"] <= 30 <= estimate["high"]


def test_who_follows_the_model_is_compared_with_blind_answers(reviewed) -> None:
    """In the world of conftest the model says malignant up to task 60."""
    rows = reviewed.published()
    agreed = {
        kind: [(row.task_id <= 30) == (row.task_id <= 60) for row in rows if row.kind == kind]
        for kind in ("control", "blind")
    }
    found = of(reviewed)["automation_bias"]
    expected = control.automation_bias(
        sum(agreed["control"]), len(agreed["control"]), sum(agreed["blind"]), len(agreed["blind"])
    )
    assert found == list(expected)


def test_without_reviews_or_a_model_nothing_is_claimed(world) -> None:
    found = of(world)
    assert found["line"] == "0 reviewed, 0 wrong labels found"
    assert found["at_random"] is None and not found["labels_saved"]["shown"]
    assert found["automation_bias"] == [None, None, None]
    assert found["wrong_labels"]["found"] == 0
    with world.store.begin() as session:
        session.get_one(Project, 1).version = None
    assert of(world) is None


def test_an_answer_given_before_or_outside_the_queue_is_no_evidence(world) -> None:
    world.annotate(5)
    found = of(world)
    assert found["reviewed"] == 0 and found["at_random"] is None
    assert found["line"] == "0 reviewed, 0 wrong labels found; outside the queue 1 more, 1 wrong labels found"
    assert found["outside_the_queue"] == {"reviewed": 1, "wrong": 1}


def test_the_error_rate_left_by_the_estimate_and_by_the_control_arm(reviewed) -> None:
    found, rows = of(reviewed), reviewed.published()
    drawn = [row.task_id <= 30 for row in rows if row.kind in ("control", "blind")]
    done = sum(row.task_id <= 30 for row in rows)
    left = found["error_rate_left"]
    assert left["labels"] == 120
    assert left["by_control"] == pytest.approx([rate * 40 / 120 for rate in control.rate(Arm(len(drawn), sum(drawn)))])
    total = found["wrong_labels"]
    assert left["estimated"] == pytest.approx([(total[name] - done) / 120 for name in ("total", "low", "high")])
    assert left["estimated"][1] <= (30 - done) / 120 <= left["estimated"][2]


def test_no_error_rate_is_claimed_where_nothing_tells_it(world) -> None:
    (world.registry.version(1, 1) / "predictions.npz").unlink()
    left = of(world)["error_rate_left"]
    assert left == {"labels": 120, "estimated": None, "by_control": None}


def test_a_versions_folder_that_is_gone_costs_what_it_said_and_no_more(reviewed) -> None:
    (reviewed.registry.version(1, 1) / "predictions.npz").unlink()
    found = of(reviewed)
    assert found["reviewed"] == 80 and found["wrong_found"] > 0
    assert found["wrong_labels"] is None and found["automation_bias"] == [None, None, None]
