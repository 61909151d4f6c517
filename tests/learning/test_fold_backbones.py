import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from backend.learning.backbone import WeightsError
from backend.learning.config import LearningConfig
from backend.learning.fold_backbones import load_backbones, train_backbones
from tasks.schema import Head

CONFIG = LearningConfig(backbone="test_resnet", weights="scratch", image_size=32, folds=3, epochs=2)
HEADS = [Head("bom", "image", "single", ("benign", "malignant"), 1.0, False, None, None, True)]
FOLDS = np.repeat([0, 1, 2, -1], 24).astype(np.int8)


def arguments(seed: int = 0):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (96, 32, 32, 3), dtype=np.uint8)
    return pixels, {"bom": np.eye(2, dtype=np.float32)[rng.integers(0, 2, 96)]}, FOLDS, HEADS, CONFIG


def contents(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.iterdir())]


def test_a_run_killed_while_it_trains_ends_with_the_same_weights(tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    # The process kills itself, as hard as any other could, in the middle of the second fold's backbone.
    script = f"""
import os, signal, sys, torch
from pathlib import Path
torch.set_num_threads({torch.get_num_threads()})
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_fold_backbones import arguments, train_backbones
def progress(done, total):
    if done == total // 2:
        os.kill(os.getpid(), signal.SIGKILL)
train_backbones(*arguments(), Path({str(killed)!r}), progress)
"""
    root = str(Path(__file__).parents[2])
    ended = subprocess.run([sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": root}, check=False)
    assert ended.returncode == -signal.SIGKILL
    first = killed / "backbone-0.safetensors"
    assert [path.name for path in killed.iterdir()] == [first.name]
    written = first.stat().st_mtime_ns
    (killed / "backbone-1.safetensors.part").write_bytes(b"half a file")

    train_backbones(*arguments(), killed)
    train_backbones(*arguments(), whole)
    assert first.stat().st_mtime_ns == written
    assert len(contents(whole)) == CONFIG.folds and contents(killed) == contents(whole)


def test_backbones_made_from_other_labels_or_folds_are_made_anew(tmp_path: Path) -> None:
    pixels, targets, folds, heads, config = arguments()
    train_backbones(pixels, targets, folds, heads, config, tmp_path)
    before = contents(tmp_path)
    train_backbones(pixels, targets, folds, heads, replace(config, head_seeds=7), tmp_path)
    assert contents(tmp_path) == before
    train_backbones(pixels, {"bom": targets["bom"][:, ::-1]}, folds, heads, config, tmp_path)
    assert not set(contents(tmp_path)) & set(before)
    (tmp_path / "backbone-1.safetensors").write_bytes(b"damaged")
    train_backbones(pixels, targets, folds, heads, config, tmp_path)
    assert contents(tmp_path) == before


def test_progress_runs_from_the_first_batch_to_the_last_over_all_folds(tmp_path: Path) -> None:
    seen: list[float] = []
    train_backbones(*arguments(), tmp_path, lambda done, total: seen.append(done / total))
    assert seen == sorted(seen) and seen[-1] == 1
    seen.clear()
    train_backbones(*arguments(), tmp_path, lambda done, total: seen.append(done / total))
    assert seen == [1 / 3, 2 / 3, 1]


def test_backbones_are_found_again_in_the_order_of_the_folds(tmp_path: Path) -> None:
    backbones = train_backbones(*arguments(), tmp_path)
    for left, right in zip(backbones, load_backbones(tmp_path), strict=True):
        assert all(
            (one == two).all()
            for one, two in zip(left.model.state_dict().values(), right.model.state_dict().values(), strict=True)
        )
    with pytest.raises(WeightsError, match="holds no backbone"):
        load_backbones(tmp_path / "elsewhere")


def test_neither_the_fold_nor_the_holdout_is_ever_read(tmp_path: Path) -> None:
    pixels, targets, folds, heads, config = arguments()

    reads: list[np.ndarray] = []

    class Watched:
        def __len__(self) -> int:
            return len(pixels)

        def __getitem__(self, rows: np.ndarray) -> np.ndarray:
            reads.append(rows)
            return pixels[rows]

    train_backbones(Watched(), targets, folds, heads, config, tmp_path)
    third = len(reads) // 3
    for fold in range(3):
        read = set(np.concatenate(reads[fold * third : (fold + 1) * third]))
        assert read and set(folds[list(read)]) == {0, 1, 2} - {fold}
