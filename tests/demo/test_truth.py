"""Before and after on the truth: masks drawn by hand, beside scikit-learn's F1 of the pixels."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from sklearn.metrics import f1_score

from backend.learning.folds import HOLDOUT
from backend.replay.label_studio import PROJECT
from demo.answer import before_and_after
from demo.truth import metrics_by_version
from tasks import datafolder
from tasks.tables import Task
from tests.backend.squares import SCHEMA, HandDrawn, moved

COUNT = 40


def test_dice_of_every_version_on_the_true_masks_by_site(tmp_path: Path) -> None:
    images = tmp_path / "images"
    world = HandDrawn(images, COUNT)
    lines = ["file,site,mask"]
    for number, mask in enumerate(world.masks):
        Image.fromarray(mask).save(images / f"mask-{number}.png")
        lines.append(f"{number}.png,{'ab'[number % 2]},mask-{number}.png")
    (images / "labels.csv").write_text("\n".join(lines))
    with world.store.begin() as session:
        for task in session.query(Task):
            task.data = task.data | {"file": task.image}
    drawn = {1: moved(world.masks, 5), 2: moved(world.masks, 1)}
    for version, masks in drawn.items():
        taken, _, _ = world.leave(version, masks)
    held = taken.ids[taken.folds == HOLDOUT] - 1
    assert len(set(held % 2)) == 2

    read = datafolder.read(images, SCHEMA)
    found = metrics_by_version(world.store, world.settings.state_dir, PROJECT, SCHEMA, read)
    for row, (version, masks) in zip(found, drawn.items(), strict=True):
        each = np.array([f1_score(world.masks[number].ravel(), masks[number].ravel()) for number in held])
        mask = row["holdout"]["mask"]
        assert row["version"] == version and mask["n"] == len(held)
        assert mask["dice"] == pytest.approx(each.mean())
        assert mask["sites"] == {"ab"[odd]: pytest.approx(each[held % 2 == odd].mean()) for odd in (0, 1)}

    with (console := Console(width=200)).capture() as text:
        console.print(before_and_after({"answered": 3, "corrected": 0, "model_versions": found}))
    said = text.get()
    first, last = (row["holdout"]["mask"]["dice"] for row in found)
    assert f"{first:.3f} > {last:.3f}" in said and "mask, b" in said
    assert "accuracy" not in said
