"""`second-look demo --check`: the whole loop, judged by what Label Studio served and kept."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from backend.evaluation.metrics import FIGURES
from demo import check, run

ROOT = Path(__file__).parents[2]
DDTI = ROOT.parent / "shared" / "data" / "ddti"


def assert_closed(found: dict[str, Any]) -> None:
    assert found["served_order_spearman"] == 1.0
    assert found["duplicates_served"] == 0
    assert found["served_outside_order"] == 0
    assert found["annotations_in_ledger"] == found["annotations_sent"] > 0
    assert found["retrains"] >= 2 and found["refills"] >= 1
    assert found["queue_version_matches"] is True
    assert found["ledger_breaks"] == []
    assert found["closed"] is True
    assert [version["version"] for version in found["model_versions"]][:3] == [1, 2, 3]


def test_the_loop_closes_on_phantoms() -> None:
    program = Path(sys.executable).parent / "second-look"
    done = subprocess.run([program, "demo", "--check", "--json"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout
    found = json.loads(done.stdout)
    assert_closed(found)
    assert found["tasks"] == 600
    assert found["labels_corrected"] > 0
    for version in found["model_versions"]:
        assert set(version["holdout"]["bom"]) == {"n", *FIGURES}
    assert found["model_versions"][0]["holdout"]["bom"]["auc"] >= 0.85


def test_the_loop_closes_on_annotated_tasks(
    label_studio_template: Path, phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thyroid images where they are, phantoms where not, all imported with annotations: each is a task to reopen."""
    monkeypatch.setenv("SECOND_LOOK_EPOCHS", "2")
    folder = tmp_path / "demo"
    shutil.copytree(label_studio_template, folder)
    data, config = (DDTI, ROOT / "docs" / "examples" / "ddti.xml") if DDTI.exists() else (phantoms, run.CONFIG)
    found = check.check(folder, data, config, 160, Console(stderr=True), annotated=True)
    assert_closed(found)
    assert 100 < found["tasks"] <= 160
    assert found["reopened"] >= found["annotations_counted"] > 0
    assert found["reopened_left_open"] == 0
    assert found["annotations_changed"] == 0
