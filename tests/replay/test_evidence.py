"""The replays behind docs/evidence.md: stopped and gone on with, and the document that comes of them."""

from pathlib import Path

import pytest

from backend.replay.curves import Point
from bench.evidence import document, replays
from demo.phantoms import write_phantoms


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[replays.DataSet]:
    write_phantoms(tmp_path / "folder", 60, 3)
    monkeypatch.setattr(replays, "LEARNING", replays.LEARNING | {"folds": 2})
    monkeypatch.setattr(replays, "STRATEGIES", ("hybrid", "random"))
    config = replays.ROOT / "label_config.xml"
    return [
        replays.DataSet("kept", config, tmp_path / "folder", 50, 0.1, 32, 1),
        replays.DataSet("absent", config, tmp_path / "nowhere", None, 0.05, 32, 1),
    ]


def test_stopped_replays_go_on_where_they_were(small: list[replays.DataSet], tmp_path: Path) -> None:
    state = tmp_path / "state" / "results.jsonl"
    going = replays.run(small, 1, state)
    assert next(going).startswith("kept, seed 300, hybrid")
    going.close()  # stopped after the first strategy
    with state.open("a") as lines:
        lines.write('{"data": "kept", "seed": 300, "strat')  # and killed while it wrote
    assert [line.split(":")[0] for line in replays.run(small, 1, state)] == ["kept, seed 300, random"]
    assert list(replays.run(small, 1, state)) == []
    found = replays.kept(state)
    assert found.keys() == {("kept", 300, "hybrid"), ("kept", 300, "random")}
    assert [point.reviewed for point in found["kept", 300, "hybrid"]] == [0, 2, 4, 6]
    text = document.written(small, found)
    assert "## absent\n\nNot replayed" in text and "Goals:" in text


def points(seed: int, found: list[float], f1: list[float]) -> list[Point]:
    ranked = {"auroc": 0.9, "precision": 0.5, "first_tenth": 0.7}
    suspects = dict.fromkeys(("loop", "image", "cleanlab self_confidence"), ranked)
    return [
        Point(
            seed=seed,
            reviewed=10 * step,
            figures={"errors_found": share, "wrong_labels_left": 0.05 * (1 - share), "macro_f1": f1[step], "auc": 0.8}
            | {"accuracy": 0.8, "ece": 0.1},
            suspects={} if step else suspects,
            estimated_wrong=(11.0, 8.0, 20.0),
            true_wrong=10,
            seconds=1.0,
        )
        for step, share in enumerate([0.0, *found])
    ]


def test_the_document_says_which_goals_were_reached() -> None:
    sets = [replays.DataSet("phantoms", Path("label_config.xml"), None, 1000, 0.0, 64, 8)]
    results = {}
    for seed in range(3):
        results["phantoms", seed, "hybrid"] = points(seed, [0.5, 0.8, 0.9], [0.7, 0.72, 0.74, 0.75])
        results["phantoms", seed, "random"] = points(seed, [0.05, 0.1, 0.15], [0.7, 0.7, 0.7, 0.76])
        results["phantoms", seed, "disagreement"] = points(seed, [0.6, 0.9, 0.95], [0.7, 0.7, 0.7, 0.7])
    text = document.written(sets, results)
    assert "hybrid finds 80.0% of the errors, 8.0 times what random finds, and 0.89 of the best" in text
    assert "After 15 % reviewed 0.50% of the labels are wrong (goal: under 1 %): reached" in text
    assert "Macro F1 on the clean hold-out moves by +0.050 (+0.050 to +0.050)" in text
    assert "| queue |" not in text and "| hybrid | 10% | +10% | 3 of 3 | 12.0 (12.0 to 12.0) |" in text
    assert "Learning curve of macro F1: hybrid beyond doubt below random at 15%, in the mean below at 15%" in text
    assert text.count("**not reached**") == 2  # the curves of macro F1, and of AUC, which is level throughout
