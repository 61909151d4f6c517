"""Replays: wrong labels mixed in, the loop without Label Studio, and what comes of several seeds."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from backend.cli import app
from backend.replay.curves import interval
from backend.replay.material import MaterialError, from_folder
from backend.replay.noise import with_noise
from demo.phantoms import write_phantoms
from tasks import datafolder
from tasks.schema import Head, parse_label_config

CONFIG = Path(__file__).parents[2] / "label_config.xml"
GRADE = Head("tirads", "image", "single", ("TR1", "TR2", "TR3", "TR4"), 1.0, True, None, None, True)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("replay") / "phantoms"
    write_phantoms(folder, 90, 5)
    return folder


@pytest.mark.parametrize("kind", ["uniform", "confusable"])
def test_so_many_labels_are_exchanged_and_no_others(kind: Any) -> None:
    rng = np.random.default_rng(0)
    labels: list[dict[str, tuple[str, ...]]] = [
        {"tirads": (f"TR{rng.integers(1, 5)}",), "other": ("x",)} for _ in range(200)
    ]
    labels[::10] = [{"other": ("x",)}] * 20
    made = with_noise(labels, GRADE, 0.05, kind, seed=1)
    changed = [row for row in range(200) if made[row] != labels[row]]
    assert len(changed) == 9  # 5 % of the 180 labelled ones
    assert all(made[row]["other"] == ("x",) and made[row]["tirads"] != labels[row]["tirads"] for row in changed)
    if kind == "confusable":
        assert all(abs(int(made[row]["tirads"][0][2]) - int(labels[row]["tirads"][0][2])) == 1 for row in changed)
    assert with_noise(labels, GRADE, 0.05, kind, seed=1) == made
    assert with_noise(labels, GRADE, 0.0, kind, seed=1) == labels


def test_noise_that_cannot_be_made_says_why() -> None:
    with pytest.raises(ValueError, match="share"):
        with_noise([{"tirads": ("TR1",)}], GRADE, 1.0, "uniform", 0)
    with pytest.raises(ValueError, match="1 class"):
        with_noise([{"tirads": ("TR1",)}] * 3, GRADE, 0.5, "uniform", 0)


def test_the_interval_over_seeds_is_students() -> None:
    values = [0.1, 0.4, 0.35, 0.2]
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert interval(values) == pytest.approx([np.mean(values), low, high])
    assert interval([0.3]) == [0.3, 0.3, 0.3]
    assert interval([0.3, None]) is None


def test_simulate_prints_a_line_for_each_strategy(phantoms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from backend.settings import Settings

    quick = Settings(
        backbone="resnet10t", weights="scratch", image_size=32, epochs=1, folds=2, head_seeds=1, _env_file=None
    )
    monkeypatch.setattr("backend.settings.settings", lambda: quick)
    arguments = ["simulate", str(phantoms), "--label-config", str(CONFIG), "--strategies", "disagreement,random"]
    done = CliRunner().invoke(app, [*arguments, "--budget", "20", "--batch", "10", "--seeds", "2", "--json"])
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["strategy"] for line in lines] == ["disagreement", "random"]
    for line in lines:
        assert line["seeds"] == 2 and line["reviewed"] == [0, 10, 20]
        found, left = [value[0] for value in line["errors_found"]], [value[0] for value in line["wrong_labels_left"]]
        assert found[0] == 0 and found == sorted(found) and left == sorted(left, reverse=True)
        assert left[0] > 0
        # Every error is found or left: both are shares of the same wrong labels.
        assert [1 - value / left[0] for value in left] == pytest.approx(found, abs=0.03)
        assert line["true_wrong"][0] > 0 and line["seconds"][0] > 0
        assert 0 <= line["suspects_auroc"][0] <= 1


@pytest.mark.parametrize(
    ("more", "said"), [(["--strategies", "best"], "no strategy 'best'"), (["--noise", "1.5"], "share of wrong labels")]
)
def test_what_cannot_be_replayed_is_said_in_a_sentence(phantoms: Path, more: list[str], said: str) -> None:
    done = CliRunner().invoke(app, ["simulate", str(phantoms), "--label-config", str(CONFIG), *more])
    assert done.exit_code == 1
    assert said in done.output and "Traceback" not in done.output


def test_labels_that_are_all_the_same_are_nothing_to_replay(phantoms: Path) -> None:
    config = CONFIG.read_text()
    folder = datafolder.read(phantoms, parse_label_config(config))
    benign = replace(folder, rows=tuple(row for row in folder.rows if row.truth["bom"] == ("benign",)))
    with pytest.raises(MaterialError, match="all labels of 'bom' are the same"):
        from_folder(benign, config, 0.0, "uniform", 0)
    unknown = replace(folder, rows=tuple(replace(row, truth={}) for row in folder.rows))
    with pytest.raises(MaterialError, match="no row has a label of 'bom'"):
        from_folder(unknown, config, 0.0, "uniform", 0)
