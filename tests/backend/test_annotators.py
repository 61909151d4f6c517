"""Several annotators of one task, and one who works too long."""

import time
from typing import Any

import numpy as np
import pytest

from backend.evaluation.consensus import consensus
from backend.report import annotators
from backend.report.facts import gather
from backend.report.material import Material, read
from backend.report.page import render
from backend.scored import Scored
from tasks import fatigue
from tasks.tables import Annotation, Task

LABELS = ("benign", "malignant")


def answer(
    world: Any, number: int, task: int, by: int, label: str, at: str = "2026-01-02T10:00:00Z", **more: Any
) -> None:
    told = {"was_cancelled": False, "result": [], "labels": {"bom": [label]}, "origin": "person"} | more
    with world.store.begin() as session:
        session.add(
            Annotation(project_id=1, id=number, task_id=task, completed_by=by, created_at=at, updated_at=at, **told)
        )


def material(world: Any) -> Material:
    return read(world.store, world.registry, 1)


@pytest.fixture
def crowd(world: Any) -> tuple[Any, np.ndarray]:
    """Users 7, 8 and 9 answer most of 60 tasks; 9 guesses. With what they said, (60, 3)."""
    rng = np.random.default_rng(0)
    said = np.full((60, 3), np.nan)
    for who, skill in enumerate((0.95, 0.9, 0.5)):
        came = rng.random(60) < 0.7
        said[came, who] = np.where(rng.random(60) < skill, np.arange(60) % 2, 1 - np.arange(60) % 2)[came]
    for place, (task, who) in enumerate(np.argwhere(~np.isnan(said))):
        answer(world, 1000 + place, int(task) + 1, 7 + int(who), LABELS[int(said[task, who])])
    return world, said


def test_agreement_is_that_of_the_answers_beside_the_newest_model(crowd: tuple[Any, np.ndarray]) -> None:
    world, said = crowd
    found = annotators.agreement(material(world))
    p = Scored.load(world.registry.version(1, 1) / "predictions.npz").probabilities["bom"][:60]
    expected = consensus(said, p)
    assert expected is not None and found["said"] is None
    several = ~np.isnan(expected.quality)
    assert found["tasks"] == several.sum() and found["agreement"] == pytest.approx(expected.agreement[several].mean())
    for column, row in enumerate(found["annotators"]):
        assert row["annotator"] == 7 + column and row["shared"] == expected.shared[column]
        assert row["agrees"] == pytest.approx(expected.agrees[column])
        assert row["quality"] == pytest.approx(expected.trust[column])
    split = np.flatnonzero(expected.agreement < 1)
    assert 0 < len(found["split"]) <= annotators.SPLIT
    assert {row["task"] for row in found["split"]} <= set((split + 1).tolist())
    assert found["split"][0]["quality"] == pytest.approx(np.nanmin(expected.quality[split]))
    first = found["split"][0]
    row = said[first["task"] - 1]
    assert first["answers"] == [
        {"annotator": 7 + who, "label": LABELS[int(row[who])]} for who in range(3) if not np.isnan(row[who])
    ]
    page = render(gather(world.store, world.settings, 1))
    assert f"{found['tasks']} tasks were answered by two or more" in page and "for an expert" in page


def test_flagged_and_earlier_answers_are_not_compared(world: Any) -> None:
    for place, (by, label, more) in enumerate(
        [
            (7, "benign", {}),
            (7, "malignant", {"at": "2026-01-03T10:00:00Z"}),
            (8, "malignant", {}),
            (9, "benign", {"flagged": True}),
        ]
    ):
        answer(world, 1000 + place, 3, by, label, **more)
    found = annotators.agreement(material(world))
    assert (found["tasks"], found["agreement"], found["split"]) == (1, 1.0, [])
    assert [row["annotator"] for row in found["annotators"]] == [7, 8]


def test_what_cannot_be_told_is_said(world: Any) -> None:
    assert annotators.agreement(material(world))["said"] == "Nobody has answered yet: agreement cannot be told."
    answer(world, 1000, 3, 7, "benign")
    assert annotators.agreement(material(world))["said"] == "One annotator, user 7: agreement cannot be told."
    assert "One annotator, user 7" in render(gather(world.store, world.settings, 1))
    answer(world, 1001, 4, 8, "benign")
    assert annotators.agreement(material(world))["said"] == annotators.ALONE
    answer(world, 1002, 4, 7, "benign")
    (world.registry.version(1, 1) / "predictions.npz").unlink()
    assert annotators.agreement(material(world))["said"].startswith("No model has learnt bom yet")
    with world.store.begin() as session:
        session.query(Task).update({Task.deleted_at: 1.0})
    assert annotators.agreement(material(world))["said"] == "Nobody has answered yet: agreement cannot be told."


def test_answers_beyond_the_daily_limit_are_told_apart(world: Any) -> None:
    # Two days of three and five answers; what was on record is benign.
    for place in range(8):
        day, label = ("02" if place < 3 else "03"), ("malignant" if place in (0, 6, 7) else "benign")
        answer(world, 1000 + place, place + 1, 7, label, at=f"2026-01-{day}T10:{place:02}:00Z")
    (row,) = annotators.annotators(material(world), 3)
    assert row["tired"] == {
        "beyond": 2,
        "checked_within": 6,
        "corrected_within": 1,
        "checked_beyond": 2,
        "corrected_beyond": 2,
    }
    assert annotators.annotators(material(world), 0)[0]["tired"] is None
    page = render(gather(world.store, world.settings.model_copy(update={"daily_limit": 3}), 1))
    assert "User 7 gave 2 answers beyond the daily limit" in page and "2 of 2 (100.0 %) beyond the limit" in page


def test_an_alarm_names_who_answered_more_than_the_limit_today(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "gmtime", lambda: time.strptime("2026-01-03 15:00:00", "%Y-%m-%d %H:%M:%S"))
    for place in range(4):
        answer(world, 1000 + place, place + 1, 7, "benign", at=f"2026-01-03T10:{place:02}:00Z")
        answer(world, 2000 + place, place + 1, 8, "benign", at=f"2026-01-02T23:{place:02}:00Z")
    answer(world, 3000, 9, 7, "", at="2026-01-03T11:00:00Z", origin="skipped")
    answer(world, 3001, 9, 7, "benign", at="2026-01-03T11:00:00Z", deleted_at=1.0)
    assert fatigue.alarms(world.store, 1, 3) == ["user 7 has given 4 answers today: the daily limit is 3"]
    assert (
        fatigue.alarms(world.store, 1, 4)
        == []
        == fatigue.alarms(world.store, 1, 0)
        == fatigue.alarms(world.store, 2, 3)
    )
