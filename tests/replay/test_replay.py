"""Replays: wrong labels mixed in, the loop without Label Studio, and what comes of several seeds."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from scipy import stats
from typer.testing import CliRunner

from backend.cli import app
from backend.learning import backbone
from backend.learning.decode import decode
from backend.registry import Registry
from backend.replay.affordable import SMALL, affordable
from backend.replay.curves import Point, interval
from backend.replay.label_studio import ReplayImages
from backend.replay.material import MaterialError, from_folder, from_project
from backend.replay.noise import with_noise
from backend.replay.recommend import advantage, recommended
from backend.settings import Settings
from demo.phantoms import write_phantoms
from tasks import datafolder
from tasks.schema import Head, parse_label_config
from tasks.store import Store
from tasks.tables import Annotation, Task

CONFIG = Path(__file__).parents[2] / "label_config.xml"
BOM = """<View><Image name="image" value="$image"/>
<Choices name="bom" toName="image" model_current="$bom" model_positive="malignant" required="true">
<Choice value="benign"/><Choice value="malignant"/></Choices></View>"""
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


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Learning that takes a second."""
    chosen = Settings(
        state_dir=tmp_path, backbone="resnet10t", weights="scratch", image_size=32, epochs=1, folds=2, head_seeds=1
    )
    monkeypatch.setattr("backend.settings.settings", lambda: chosen)
    return chosen


@pytest.mark.usefixtures("quick")
def test_simulate_prints_a_line_for_each_strategy(phantoms: Path, tmp_path: Path) -> None:
    plot = tmp_path / "curves.svg"
    arguments = ["simulate", str(phantoms), "--label-config", str(CONFIG), "--strategies", "hybrid,random"]
    more = ["--budget", "20", "--batch", "10", "--seeds", "2", "--json", "--plot", str(plot)]
    done = CliRunner().invoke(app, [*arguments, *more])
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["strategy"] for line in lines] == ["hybrid", "random"]
    for line in lines:
        assert line["seeds"] == 2 and line["reviewed"] == [0, 10, 20]
        found, left = [value[0] for value in line["errors_found"]], [value[0] for value in line["wrong_labels_left"]]
        assert found[0] == 0 and found == sorted(found) and left == sorted(left, reverse=True)
        assert left[0] > 0
        # Every error is found or left: both are shares of the same wrong labels.
        assert [1 - value / left[0] for value in left] == pytest.approx(found, abs=0.03)
        assert line["unseen"].keys() == {"accuracy", "macro_f1", "auc", "ece"} and len(line["unseen"]["auc"]) == 3
        assert line["true_wrong"][0] > 0 and line["seconds"][0] > 0
        assert 0 <= line["suspects_auroc"][0] <= 1
        suspects = line["suspects"]
        assert suspects["loop"]["auroc"] == line["suspects_auroc"]
        assert suspects["image"]["auroc"][0] == pytest.approx(suspects["cleanlab self_confidence"]["auroc"][0])
        assert line["estimated_wrong"][0] > 0 and line["estimated_wrong_covered"] in (0, 0.5, 1)
    assert sum(line["recommended"] for line in lines) == 1
    assert lines[0]["over_hybrid"] == [0, 0, 0] and lines[0]["settings"] == {"preset": "auto"}
    assert not lines[1]["recommended"] and lines[1]["settings"] == {}
    drawn = ElementTree.fromstring(plot.read_text())
    assert {"hybrid", "random"} <= {element.text for element in drawn.iter()}
    assert len(list(drawn.iter("{http://www.w3.org/2000/svg}polygon"))) == 6  # an interval a strategy and panel


def replayed(found: list[list[float | None]]) -> list[Point]:
    """Points of seeds 0, 1, ... whose shares of errors found after 10, 20, ... reviews are these."""
    return [
        Point(seed, 10 * step, {"errors_found": value}, {}, {}, None, 5, 1.0)
        for seed, values in enumerate(found)
        for step, value in enumerate([0.0, *values])
    ]


def test_weights_are_recommended_only_where_seeds_tell_them_from_the_default() -> None:
    default = replayed([[0.2, 0.4], [0.3, 0.5], [0.1, 0.3]])
    better = replayed([[0.4, 0.6], [0.5, 0.7], [0.29, 0.5]])
    unsure = replayed([[0.9, 1.0], [0.1, 0.2], [0.2, 0.4]])
    low, high = stats.t.interval(0.95, 2, np.mean([0.2, 0.2, 0.195]), stats.sem([0.2, 0.2, 0.195]))
    assert advantage(better, default) == pytest.approx([np.mean([0.2, 0.2, 0.195]), low, high])
    assert recommended({"hybrid": default, "disagreement": better, "entropy": unsure}) == "disagreement"
    assert recommended({"hybrid": default, "entropy": unsure}) == "hybrid"
    assert recommended({"hybrid": default, "random": better}) == "hybrid"  # chance has no weights
    assert recommended({"hybrid": default[:3], "disagreement": better[:3]}) == "hybrid"  # one seed
    assert recommended({"hybrid": replayed([[None]]), "disagreement": replayed([[None]])}) is None
    assert recommended({"disagreement": better}) is None


def finished_project(settings: Settings, count: int) -> None:
    """Of 80 tasks `count` have a person's answer; each tenth label on record is wrong."""
    rng = np.random.default_rng(0)
    store, registry = Store.open(settings.database), Registry(settings.state_dir)
    store.register_project(7, BOM)
    with store.begin() as session:
        for number in range(1, 81):
            truth = ("benign", "malignant")[number % 2]
            said = truth if number % 10 else ("malignant", "benign")[number % 2]
            pixels = rng.integers(0, 60, (32, 32, 3), dtype=np.uint8) + (100 if truth == "malignant" else 0)
            save = registry.pixels(32, f"{number:064d}")
            save.parent.mkdir(parents=True, exist_ok=True)
            np.save(save, pixels.astype(np.uint8))
            data = {"image": f"{number}.png", "bom": said}
            about: dict[str, Any] = {"updated_at": "2026-01-01", "is_labeled": number <= count}
            about |= {"image": f"{number}.png", "current": {"bom": [said]}, "pixels": f"{number:064d}"}
            session.add(Task(project_id=7, id=number, data=data, **about))
            if number <= count:
                session.add(
                    Annotation(
                        project_id=7,
                        id=number,
                        task_id=number,
                        completed_by=1,
                        created_at="2026-01-02",
                        updated_at="2026-01-02",
                        was_cancelled=False,
                        result=[],
                        labels={"bom": [truth]},
                        origin="person",
                    )
                )


def test_a_projects_own_finished_labels_are_replayed(quick: Settings) -> None:
    finished_project(quick, 70)
    material = from_project(Store.open(quick.database), Registry(quick.state_dir), 32, 7, 0.0, "uniform", 0)
    assert len(material.truth) == 70
    wrong = [row["bom"] != truth["bom"][0] for row, truth in zip(material.data, material.truth, strict=True)]
    assert wrong == [number % 10 == 0 for number in range(1, 71)]
    (read,) = ReplayImages(material.files).fetch_many(["3.png"], 1, 1)
    assert np.array_equal(decode(read[1], 32), np.load(material.files["3.png"]))  # pixel by pixel what was cached
    arguments = ["simulate", "--project", "7", "--strategies", "hybrid", "--budget", "20", "--batch", "20", "--json"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    line = json.loads(done.stdout)
    assert line["reviewed"] == [0, 20] and 0 < line["true_wrong"][0] <= 7
    noisy = from_project(Store.open(quick.database), Registry(quick.state_dir), 32, 7, 0.3, "uniform", 0)
    assert sum(a != b for a, b in zip(noisy.data, material.data, strict=True)) == 21


def test_a_project_with_too_little_finished_says_so(quick: Settings) -> None:
    finished_project(quick, 30)
    done = CliRunner().invoke(app, ["simulate", "--project", "7"])
    assert done.exit_code == 1 and "30 tasks of project 7" in done.output and "needs 50" in done.output
    done = CliRunner().invoke(app, ["simulate", "--project", "8"])
    assert done.exit_code == 1 and "name a project with --project: 7" in done.output
    assert "name a data folder" in CliRunner().invoke(app, ["simulate"]).output


def table(folder: Path, rows: list[str]) -> Path:
    """A data folder of these rows of file, benign or malignant, and TI-RADS."""
    folder.mkdir()
    for row in rows:
        Image.new("RGB", (40, 30), (len(row), 0, 0)).save(folder / row.split(",")[0])
    (folder / "labels.csv").write_text("\n".join(["file,bom,tirads", *rows]))
    return folder


LABELS = [f"{n}.png,{('benign', 'malignant')[n % 2]},{'TR5' if n % 3 else ''}" for n in range(60)]


@pytest.mark.parametrize(
    ("rows", "more", "said"),
    [
        ([], [], "no row that can be used"),
        ([f"{n}.png,benign,TR1" for n in range(30)], [], "all labels of 'bom' are the same"),
        ([f"{n}.png,,TR{n % 5 + 1}" for n in range(30)], [], "no row has a label of 'bom'"),
        (LABELS, ["--budget", "0"], "0.000"),  # no patients, no sites, most heads without labels
        (LABELS[:8], ["--budget", "4", "--batch", "2", "--noise", "0.3"], "hybrid"),  # too few to learn from
    ],
)
@pytest.mark.usefixtures("quick")
def test_poor_material_gives_a_sentence(tmp_path: Path, rows: list[str], more: list[str], said: str) -> None:
    folder = table(tmp_path / "poor", rows)
    arguments = ["simulate", str(folder), "--label-config", str(CONFIG), "--strategies", "hybrid", *more]
    done = CliRunner().invoke(app, arguments)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert said in done.output and "Traceback" not in done.output


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


def test_a_replay_of_a_folder_learns_what_a_cpu_can_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbone, "HUB_TIMEOUT_S", 0.001)
    monkeypatch.setattr(backbone.hub, "ENDPOINT", "http://127.0.0.1:1")  # nobody listens there
    asked = Settings(folds=4, seed=3, _env_file=None)  # type: ignore[call-arg]
    found, said = affordable(asked)
    assert found == asked.model_copy(update=SMALL | {"folds": 4})
    assert said is not None and "backbone test_resnet" in said and "folds" not in said
    everything = Settings(**SMALL, _env_file=None)
    assert affordable(everything) == (everything, None)
    file = Settings(weights="backbone.safetensors", _env_file=None)  # type: ignore[call-arg]
    assert affordable(file) == (file, None)
