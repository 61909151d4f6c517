"""Projects that lack something, in whole loops with a Label Studio in memory: a clear sentence, and no traceback."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from backend.cli import app
from backend.cycle import NoTasks
from backend.replay.material import Material
from backend.replay.run import Replay
from backend.settings import Settings

COUNT = 40
BOM = """<Choices name="bom" toName="image" model_weight="0.9" model_current="$bom" model_positive="malignant"
  required="true"><Choice value="benign"/><Choice value="malignant"/></Choices>"""
GRADE = """<Choices name="grade" toName="image" model_weight="0.1" model_current="$grade" required="true">
  <Choice value="low"/><Choice value="high"/></Choices>"""
KNOWN = 'model_group="$patient" model_site="$site"'
QUICK = {"backbone": "test_resnet", "weights": "scratch", "image_size": 32, "epochs": 1, "folds": 2, "head_seeds": 1}


@dataclass(frozen=True)
class Case:
    """What a project lacks. fields: of every task in the others' place; malignant: these tasks, none: every other two.

    answers: how many reviews before the second training. says: of `status` and the report; rank: of `rank`, where it
    has no row. learns: whether anything can be learnt.
    """

    says: tuple[str, ...]
    fields: Mapping[str, str] | None = None
    malignant: tuple[int, ...] | None = None
    controls: str = BOM
    image: str = KNOWN
    count: int = COUNT
    readable: bool = True
    answers: int = 4
    rank: str = ""
    learns: bool = True


NO_MODEL, NOTHING_LEFT = "has no model yet", "nothing is left to review"
ONE_CLASS = "Nothing is learnt of bom yet: all 34 labels outside the hold-out say benign."
NOT_TOLD = "The hold-out holds no malignant: AUC and sensitivity cannot be told."
CASES = {
    "no task": Case(("The project has no tasks yet",), count=0, answers=0, rank=NO_MODEL),
    "no image": Case(("None of the 40 images could be read yet",), readable=False, answers=0, rank=NO_MODEL),
    "all reviewed": Case((), count=24, answers=24, rank=NOTHING_LEFT),
    "three tasks": Case(
        ("it takes 20 labelled tasks outside the hold-out, and 3 are there",), count=3, rank=NOTHING_LEFT, learns=False
    ),
    "one class": Case((ONE_CLASS, NOT_TOLD), malignant=(), learns=False),
    "no label": Case(
        ("Nothing is learnt of bom yet: no task carries", "No task of the hold-out carries a label of bom"),
        fields={"bom": "", "grade": ""},
        controls=BOM + GRADE,
        answers=0,
        learns=False,
    ),
    "a control without labels": Case(
        ("Nothing is learnt of grade yet: it takes 20 labelled tasks outside the hold-out, and 4 are there",),
        fields={"grade": ""},
        controls=BOM + GRADE,
    ),
    "no positive in the hold-out": Case((NOT_TOLD,), malignant=(0, 1, 8, 9)),
    "one patient": Case(
        ("There is no hold-out", "its labels come from too few patients to try a model on others"),
        fields={"patient": "p"},
        learns=False,
    ),
    "no centre and no patient": Case(
        ("No centres are known: model_site in the label config names none", "whose figures then flatter"), image=""
    ),
    "empty centres and patients": Case(
        (
            "model_site names the field site, which no task fills",
            "no task fills patient, which model_group names",
        ),
        fields={"patient": "", "site": ""},
    ),
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bright ones are malignant."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for number in range(COUNT):
        level = (173 if number // 2 % 2 else 83) + 30 * rng.normal()
        pixels = np.clip(level + 20 * rng.normal(size=(32, 32)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def material(case: Case, pictures: Path) -> Material:
    """A reviewer confirms what is on record."""
    image = f'<Image name="image" value="$image" {case.image}/>'
    why = '<TextArea name="why" toName="image" model_role="why" editable="false" maxSubmissions="1"/>'
    data, truth = [], []
    for number in range(case.count):
        malignant = number // 2 % 2 == 1 if case.malignant is None else number in case.malignant
        label = "malignant" if malignant else "benign"
        told = {"patient": f"p{number // 2}", "site": "AB"[number % 4 // 2], "bom": label, "grade": "low"}
        data.append({"image": f"/data/upload/{number}.png"} | told | dict(case.fields or {}))
        truth.append({"bom": (label,), "grade": ("low",)} if GRADE in case.controls else {"bom": (label,)})
    files = {row["image"]: pictures / Path(row["image"]).name for row in data if case.readable}
    return Material(f"<View>{image}{case.controls}{why}</View>", data, files, truth)


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


@pytest.mark.parametrize("name", CASES)
def test_every_command_has_a_sentence(
    name: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    settings = Settings(batch_size=8, head_hours=0.0, _env_file=None, **cast(Any, QUICK))
    loop = Replay(material(case, pictures), settings, tmp_path / "state")
    monkeypatch.setattr("backend.settings.settings", lambda: loop.settings)
    if not case.count or not case.readable:
        with pytest.raises(NoTasks, match="no task whose image could be read"):
            loop.begin()
    else:
        loop.begin()
        loop.answer(case.answers)
        loop.cycle()

    def said(*arguments: str, fails: bool = False) -> str:
        done = CliRunner().invoke(app, list(arguments))
        assert done.exit_code == int(fails), f"{arguments}: {done.output} {done.exception!r}"
        assert not done.exception or isinstance(done.exception, SystemExit)
        assert not re.search(r"\bnan\b", done.output)
        return " ".join(done.output.split())

    status, page = said("status"), tmp_path / "report.html"
    for arguments in (["status"], ["report", "--out", str(page)], ["rank"], ["models"]):
        json.loads(said(*arguments, "--json"), parse_constant=refuse)
    text = re.sub(r"<style>.*?</style>|<[^>]+>", " ", page.read_text(encoding="utf-8"), flags=re.S)
    assert not re.search(r"\bnan\b|\bNone\b(?! (shown|of|can))", text)
    for sentence in case.says:
        assert sentence in status and sentence in " ".join(text.split())
    assert "One annotator, user 1: agreement cannot be told." in text or not case.answers

    assert case.rank in said("rank")
    assert ("Why now" in said("rank", "--json")) == (case.learns and not case.rank)
    exported = said("export", str(tmp_path / "review.csv"), fails=case.rank == NO_MODEL)
    assert (NO_MODEL in said("models")) == (NO_MODEL in exported) == (case.rank == NO_MODEL)
    assert ("has learnt nothing" in status) == (not case.learns)
    assert ("no label is suspected" in exported) == (case.rank == NOTHING_LEFT or not case.learns)
    assert "stopped" in said("stop") and "trainings come again" in said("resume")
    assert said("audit", "verify").startswith("whole")
    assert "a replay needs 50" in said("simulate", "--project", "1", "--budget", "0", fails=True)
