"""Which U-Nets a version has: the same, trained on, or new."""

from pathlib import Path

import numpy as np
import pytest

from backend.marked import Marked
from backend.registry import load_json
from backend.snapshot import Snapshot
from backend.unets import _moved
from tests.backend.squares import COUNT, Squares, scope


def made(folder: Path) -> dict[str, object]:
    found: dict[str, object] = load_json(folder / "unets" / "made.json")
    return found


@pytest.mark.parametrize(("answers", "anew"), [(1, False), (6, True)])
def test_few_more_masks_train_on_and_many_begin_anew(tmp_path: Path, answers: int, anew: bool) -> None:
    squares = Squares(tmp_path)
    first = squares.cycle()
    folds = squares.folds()
    for task in [number for number in range(COUNT // 2 + 1, COUNT + 1) if folds[number] >= 0][:answers]:
        squares.label_studio.answer(task, [*squares.drawn(task), scope("image")])
    second = squares.cycle()
    before, after = made(first), made(second)
    trained = len(Marked.load(second / "marked.json").trained(Snapshot.load(second / "snapshot.npz").folds))
    assert before["began_with"] == trained - answers
    assert after["began_with"] == (trained if anew else before["began_with"])
    assert after["learnt_from"] != before["learnt_from"]
    for fold in range(2):
        name = f"unets/unet-{fold}.safetensors"
        assert (first / name).read_bytes() != (second / name).read_bytes()


def test_a_patient_in_another_fold_is_noticed(tmp_path: Path) -> None:
    squares = Squares(tmp_path)
    folder = squares.cycle()
    taken = Snapshot.load(folder / "snapshot.npz")
    assert not _moved(folder, taken)
    row = Marked.load(folder / "marked.json").trained(taken.folds)[0]
    folds = taken.folds.copy()
    folds[row] = 1 - folds[row]
    assert _moved(folder, Snapshot(**vars(taken) | {"folds": folds}))
    other = np.flatnonzero(taken.ids > COUNT // 2)[0]  # nothing is marked in it: no U-Net saw it
    folds = taken.folds.copy()
    folds[other] = 1 - abs(folds[other])
    assert not _moved(folder, Snapshot(**vars(taken) | {"folds": folds}))
