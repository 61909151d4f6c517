"""docs/operations.md says what the code says."""

import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from backend.settings import Settings
from backend.telemetry import Telemetry
from tasks.store import Store

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "operations.md").read_text()
ALARMS = re.findall(r"^\| `([^`]+)` \|", TEXT[TEXT.index("## Alarms") :], re.M)


def test_every_metric_is_explained_and_no_other(tmp_path: Path) -> None:
    store = Store.open(f"sqlite:///{tmp_path / 'store.db'}")
    store.register_project(1, "<View/>")
    telemetry = Telemetry(Settings(state_dir=tmp_path), store)
    telemetry.observe("health", 200, 0.001)
    families = text_string_to_metric_families(telemetry.exposition().decode())
    # The parser leaves a counter's ending out.
    names = {family.name + ("_total" if family.type == "counter" else "") for family in families}
    names = {name for name in names if not name.endswith("_created")}  # when counting began
    assert names == set(re.findall(r"second_look_\w+", TEXT[TEXT.index("## Metrics") : TEXT.index("Worth waking")]))


@pytest.mark.parametrize("words", ALARMS)
def test_every_alarm_explained_is_one(words: str) -> None:
    """A sentence may run over several lines of the source, and be part of a formatted one."""
    sources = [path.read_text() for folder in ("backend", "tasks") for path in (ROOT / folder).rglob("*.py")]
    joined = [re.sub(r'"\s*\n\s*f?"', "", source) for source in sources]
    assert any(words in source for source in joined)


def test_alarms_are_explained() -> None:
    assert len(ALARMS) > 10


def test_every_setting_named_is_one() -> None:
    named = set(re.findall(r"`(?:SECOND_LOOK_)?([A-Z]+_[A-Z_]+)`", TEXT))
    elsewhere = {"LABEL_STUDIO_HOST"}  # Label Studio's own
    assert {name.lower() for name in named - elsewhere} <= set(Settings.model_fields)
