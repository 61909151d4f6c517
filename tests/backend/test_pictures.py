"""Every task gets the fold of its group, whenever it comes, and keeps it."""

from pathlib import Path

import pytest

from backend import pictures
from backend.settings import Settings
from backend.snapshot import take
from tasks.schema import parse_label_config
from tasks.store import Store
from tasks.tables import Task

GROUPED = """<View><Image name="image" value="$image" model_group="$patient"/><Choices name="bom" toName="image">
<Choice value="benign"/><Choice value="malignant"/></Choices></View>"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.open(f"sqlite:///{tmp_path / 'store.db'}")
    store.register_project(1, GROUPED)
    return store


def add(store: Store, number: int, group: str | None, pixels: str | None = None) -> None:
    with store.begin() as session:
        task = Task(project_id=1, id=number, data={}, image=f"{number}.png", group=group, updated_at="")
        task.pixels, task.current = pixels or f"digest{number}", {"bom": ["benign" if number % 3 else "malignant"]}
        session.add(task)


def assign(store: Store, before: Path) -> dict[int, int | None]:
    pictures.assign_folds(store, parse_label_config(GROUPED), Settings(folds=3), 1, before)
    with store.begin() as session:
        return {task.id: task.fold for task in session.query(Task).all()}


def test_newcomers_join_their_group_and_nobody_moves(store: Store, tmp_path: Path) -> None:
    for number in range(1, 61):
        add(store, number, f"patient{number % 30}")
    first = assign(store, tmp_path / "none.npz")
    assert set(first.values()) == {-1, 0, 1, 2}
    for number in range(61, 121):
        add(store, number, f"patient{number % 60}")  # half of them are patients that are there
    second = assign(store, tmp_path / "none.npz")
    assert all(second[number] == fold for number, fold in first.items())
    assert all(second[number] == first[number % 30 or 30] for number in second if number > 60 and number % 60 < 30)
    held = [number for number in second if number > 60 and second[number] == -1]
    assert 0.05 < len(held) / 60 < 0.3  # they take part in the hold-out as well


@pytest.mark.parametrize("reused", [False, True])
def test_deleted_images_that_come_back_keep_their_fold(store: Store, tmp_path: Path, reused: bool) -> None:
    for number in range(1, 41):
        add(store, number, None)
    first = assign(store, tmp_path / "none.npz")
    snapshot = tmp_path / "snapshot.npz"
    take(store, GROUPED, 1).save(snapshot)
    with store.begin() as session:
        for task in session.query(Task).all():
            if reused:  # SQLite gives the numbers away again: the rows are the new tasks'
                task.group, task.fold, task.pixels = None, None, f"digest{41 - task.id}"
            else:
                task.deleted_at = 1.0
    if not reused:
        for number in range(41, 81):
            add(store, number, None, pixels=f"digest{81 - number}")
    second = assign(store, snapshot)
    offset = 0 if reused else 40
    assert {number: second[offset + 41 - number] for number in range(1, 41)} == first
