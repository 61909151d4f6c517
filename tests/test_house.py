"""What holds for the whole repository."""

import ast
from importlib.metadata import version
from pathlib import Path

import pytest

from backend.settings import Settings

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for folder in ("backend", "tasks", "demo") for path in (ROOT / folder).rglob("*.py"))


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("path", [path for path in SOURCES if path.parts[-2] != "migrations" and "tasks" in path.parts])
def test_tasks_know_neither_the_backend_nor_torch_nor_flask(path: Path) -> None:
    assert not imported(path) & {"backend", "demo", "torch", "torchvision", "timm", "flask"}


def test_the_backend_does_not_know_the_demo_but_for_its_command() -> None:
    guilty = [path.name for path in SOURCES if "backend" in path.parts and "demo" in imported(path)]
    assert guilty == ["demonstration.py"]


def test_flask_is_modern_beside_label_studio_ml() -> None:
    assert tuple(map(int, version("flask").split(".")[:2])) >= (3, 1)
    assert version("label-studio-ml") == "1.0.9"


def test_every_setting_is_documented() -> None:
    text = (ROOT / "README.md").read_text()
    missing = [name for name in Settings.model_fields if f"`{name.upper()}`" not in text]
    assert not missing, "the README's table of settings lacks these"
    for name, field in Settings.model_fields.items():
        assert field.description and field.description in text, f"the README says something else of {name}"


def test_files_stay_short() -> None:
    long = {path.name: lines for path in SOURCES if (lines := len(path.read_text().splitlines())) > 340}
    assert not long
