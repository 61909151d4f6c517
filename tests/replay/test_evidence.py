"""The replays behind docs/evidence.md: stopped and gone on with, and the document that comes of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.replay import patch_run
from backend.replay.curves import Point
from backend.replay.patch_run import Moment
from backend.segmentation.config import SegmentationConfig
from bench.evidence import document, patches, patches_document, replays
from demo.phantoms import write_phantoms


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[replays.DataSet]:
    write_phantoms(tmp_path / "folder", 60, 3)
    monkeypatch.setattr(replays, "SMALL", replays.SMALL | {"folds": 2, "epochs": 1})
    config = replays.ROOT / "label_config.xml"
    return [
        replays.DataSet("kept", config, tmp_path / "folder", 50, 0.1, 32, strategies=("hybrid", "random")),
        replays.DataSet("absent", config, tmp_path / "nowhere", None, 0.05, 32),
    ]


def test_stopped_replays_go_on_where_they_were(small: list[replays.DataSet], tmp_path: Path) -> None:
    state = tmp_path / "results.jsonl"
    (job,) = replays.jobs(small, 1, state)  # of what is absent there is none
    assert (job.data.name, job.seed, job.strategies) == ("kept", 400, ("hybrid", "random"))
    going = replays.replayed(job, state)
    assert next(going).startswith("kept, seed 400, hybrid")
    going.close()  # stopped after the first strategy
    with state.open("a") as lines:
        lines.write('{"data": "kept", "seed": 400, "strat')  # and killed while it wrote
    (job,) = replays.jobs(small, 1, state)
    assert [line.split(":")[0] for line in replays.replayed(job, state)] == ["kept, seed 400, random"]
    assert replays.jobs(small, 1, state) == []
    found = replays.kept(state)
    assert found.keys() == {("kept", 400, "hybrid"), ("kept", 400, "random")}
    assert [point.reviewed for point in found["kept", 400, "hybrid"]] == [0, 2, 4, 6]
    for point in found["kept", 400, "hybrid"]:
        assert point.unseen.keys() == {"accuracy", "macro_f1", "auc", "ece"}
        assert point.unseen["auc"] is not None and point.unseen["auc"] != point.figures["auc"]  # of other images
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
            unseen={"macro_f1": f1[step], "auc": 0.8, "accuracy": 0.8, "ece": 0.1},
            suspects={} if step else suspects,
            estimated_wrong=(11.0, 8.0, 20.0),
            true_wrong=10,
            seconds=1.0,
        )
        for step, share in enumerate([0.0, *found])
    ]


def test_the_document_says_which_goals_were_reached() -> None:
    sets = [replays.DataSet("phantoms", Path("label_config.xml"), None, 1000, 0.0, 64)]
    results = {}
    for seed in range(3):
        results["phantoms", seed, "hybrid"] = points(seed, [0.5, 0.8, 0.9], [0.7, 0.72, 0.74, 0.75])
        results["phantoms", seed, "random"] = points(seed, [0.05, 0.1, 0.15], [0.7, 0.7, 0.7, 0.76])
        results["phantoms", seed, "disagreement"] = points(seed, [0.6, 0.9, 0.95], [0.7, 0.7, 0.7, 0.7])
    text = document.written(sets, results)
    assert "hybrid finds 80.0% of the errors, 8.0 times what random finds, and 0.89 of the best" in text
    assert "After 15 % reviewed 0.50% of the labels are wrong (goal: under 1 %): reached" in text
    assert "Macro F1 of the hold-out moves by +0.050 (+0.050 to +0.050)" in text
    assert "| queue |" not in text and "| hybrid | 10% | +10% | 3 of 3 | 12.0 (12.0 to 12.0) |" in text
    assert (
        "Learning curve, Macro F1 of all images: hybrid beyond doubt below random at 15%, in the mean below at 15%"
        in text
    )
    assert text.count("**not reached**") == 2  # the curves of macro F1, and of AUC, which is level throughout


def test_stopped_replays_of_patches_go_on_where_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "squares"
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = ["file,site,mask"]
    for number in range(8):
        Image.fromarray(rng.integers(0, 255, (64, 128, 3), dtype=np.uint8)).save(folder / f"{number}.png")
        Image.fromarray(rng.integers(0, 2, (64, 128), dtype=np.uint8)).save(folder / f"mask{number}.png")
        rows.append(f"{number}.png,{('DRIVE', 'CHASE_DB1')[number % 2]},mask{number}.png")
    (folder / "labels.csv").write_text("\n".join(rows))
    retina = patches.pairs(tmp_path)[0]
    chosen = [replace(retina, folder=folder), replace(retina, name="absent")]
    tiny = SegmentationConfig(backbone="test_resnet", weights="scratch", crop=32, tile=64, folds=2, steps=1)
    monkeypatch.setattr(patches, "SMALL", tiny)
    monkeypatch.setattr(patch_run, "COUNTS", (0, 1, 2))
    monkeypatch.setattr(patches, "BUDGET", 2)
    state = tmp_path / "masks.jsonl"
    (job,) = patches.jobs(chosen, 1, state)
    assert (job.pair.name, job.seed, job.strategies) == ("retina", 100, patches.STRATEGIES)
    going = patches.replayed(job, state)
    assert next(going).startswith("retina, seed 100, hybrid: Dice")
    going.close()  # stopped after the first strategy
    with state.open("a") as lines:
        lines.write('{"data": "retina", "seed": 100, "strat')  # and killed while it wrote
    (rest,) = patches.jobs(chosen, 1, state)
    assert rest.strategies == patches.STRATEGIES[1:]
    assert len(list(patches.replayed(rest, state))) == len(rest.strategies)
    assert patches.kept(state).keys() == {("retina", 100, name) for name in patches.STRATEGIES}
    text = patches_document.written(chosen, patches.kept(state))
    assert "## absent: DRIVE to CHASE_DB1\n\nNot replayed" in text and "## Goals" in text
    few = patches.jobs(chosen[:1], 4, tmp_path / "none")
    assert [len(one.strategies) for one in few] == [5, 5, 5, 4]  # of the refit fewer seeds


def test_the_document_on_masks_says_which_goals_were_reached() -> None:
    pairs = patches.pairs(Path("data"))

    def moments(*scores: float) -> list[Moment]:
        return [
            Moment(count, score, 0.8, 10 * count, 100 * count, 5.0 * count)
            for count, score in zip(patch_run.COUNTS, scores, strict=True)
        ]

    results = {}
    for seed, more in enumerate((0.0, 0.01, 0.03)):
        for pair, ahead in zip(pairs, (0.1, 0.05, -0.1), strict=True):
            hybrid = moments(0.3, 0.4, 0.5, 0.55, 0.6 + ahead + more, 0.7)
            results[pair.name, seed, "hybrid"] = hybrid
            results[pair.name, seed, "foreground-random"] = moments(0.3, 0.4, 0.5, 0.55, 0.6, 0.7)
            results[pair.name, seed, "hybrid+refit"] = moments(0.3, 0.35, 0.5, 0.55, 0.6, 0.7)
    text = patches_document.written(pairs, results)
    assert "On 2 of 3 pairs hybrid is better than foreground-random after 10 patches" in text
    assert "2 of 3): reached" in text
    assert "retina: 10 patches of hybrid move the Dice at the target by +0.413" in text
    assert "| target | +0.050 (+0.050 to +0.050) |" in text and "| random |" not in text
    worse = {key: value for key, value in results.items() if key[0] != "nuclei"}
    assert "On 1 of 2 pairs" in patches_document.written(pairs, worse)


def test_the_documents_are_what_the_kept_results_say() -> None:
    results = replays.kept(replays.ROOT / "bench" / "evidence" / "results" / "labels.jsonl")
    text = (replays.ROOT / "docs" / "evidence.md").read_text(encoding="utf-8")
    assert document.written(replays.data_sets(Path("data")), results) == text, "python -m bench.evidence --seeds 0"
    results = patches.kept(replays.ROOT / "bench" / "evidence" / "results" / "masks.jsonl")
    text = (replays.ROOT / "docs" / "evidence-masks.md").read_text(encoding="utf-8")
    assert patches_document.written(patches.pairs(Path("data")), results) == text, (
        "python -m bench.evidence --masks --seeds 0"
    )
