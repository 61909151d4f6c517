"""The loop over masks, with a Label Studio in memory: what is marked is learnt, drawn, queued, reviewed and learnt."""

import io
import threading
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from backend import jobs, marking, regions
from backend.cycle import Cycle
from backend.live import Live
from backend.marked import Marked
from backend.registry import Registry, load_json
from backend.replay.label_studio import PROJECT, ReplayImages, ReplayLabelStudio
from backend.scored import of_version
from backend.settings import Settings
from tasks import sync
from tasks.client import Client
from tasks.images import Images
from tasks.mask_codec import decode_masks, encode_masks
from tasks.queue import open_head
from tasks.schema import parse_label_config
from tasks.store import Store
from tasks.tables import Published, Task, Version

CONFIG = """<View><Image name="image" value="$image" model_group="$patient" model_site="$site"/>
<BrushLabels name="mask" toName="image"><Label value="square"/></BrushLabels>
<RectangleLabels name="look" toName="image" model_role="look"><Label value="look here"/></RectangleLabels>
<Choices name="scope" toName="image" model_role="scope">
<Choice value="rectangles" alias="patches"/><Choice value="all" alias="image"/></Choices>
<TextArea name="why" toName="image" model_role="why" editable="false" maxSubmissions="1"/></View>"""
SCHEMA = parse_label_config(CONFIG)
HEIGHT, WIDTH, COUNT = 48, 64, 24


class Squares:
    """Images of a bright square each, half of which carry an imported mask, in a loop of their own."""

    def __init__(self, folder: Path, marked: int = COUNT // 2) -> None:
        rng = np.random.default_rng(0)
        self.masks = np.zeros((COUNT, HEIGHT, WIDTH), dtype=bool)
        files, data = {}, []
        for number in range(COUNT):
            pixels = rng.integers(0, 60, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            top, left = rng.integers(2, 26, 2)
            pixels[top : top + 20, left : left + 20] += 150
            self.masks[number, top : top + 20, left : left + 20] = True
            files[f"{number}.png"] = folder / f"{number}.png"
            Image.fromarray(pixels).save(files[f"{number}.png"])
            data.append({"image": f"{number}.png", "patient": f"p{number}", "site": "ab"[number % 2]})
        self.label_studio = ReplayLabelStudio(CONFIG, data)
        for number in range(marked):
            self.record(number + 1, self.drawn(number + 1))
        self.settings = Settings(
            state_dir=folder / "state",
            backbone="test_resnet",
            weights="scratch",
            image_size=32,
            folds=2,
            unet_steps=40,
            crop_size=32,
            patch_size=16,
            patches=3,
            batch_size=4,
        )
        self.images = ReplayImages(files)
        self.store = Store.open(self.settings.database)
        self.registry = Registry(self.settings.state_dir)
        self.store.register_project(PROJECT, CONFIG, connection="poll")

    def drawn(self, task: int) -> list[dict[str, Any]]:
        return encode_masks(SCHEMA, HEIGHT, WIDTH, {"mask": self.masks[task - 1][None]}, {"mask": [1.0]})

    def record(self, task: int, result: list[dict[str, Any]]) -> None:
        """An annotation that was imported before anybody reviewed anything."""
        self.label_studio.answer(task, result)
        self.label_studio._tasks[task]["annotations"][-1] |= {"updated_by": None, "parent_prediction": None}

    def cycle(self) -> Path:
        client = cast(Client, self.label_studio)
        sync.reconcile(self.store, client, PROJECT)
        jobs.request(self.store, PROJECT, Cycle.kind, "test")
        job = jobs.claim(self.store, "test")
        assert job is not None
        made = Cycle(
            self.store,
            client,
            cast(Images, self.images),
            self.registry,
            self.settings,
            job.id,
            PROJECT,
            threading.Event(),
        ).run()
        jobs.finish(self.store, job.id, "test")
        return self.registry.version(PROJECT, made)

    def published(self) -> dict[int, Published]:
        with self.store.begin() as session:
            version = session.query(Version).order_by(Version.number.desc()).first()
            assert version is not None
            rows = session.query(Published).where(Published.version == version.number).all()
        return {row.task_id: row for row in rows}


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Squares:
    made = Squares(tmp_path_factory.mktemp("squares"))
    made.cycle()
    return made


def test_masks_and_rectangles_are_published(squares: Squares) -> None:
    shown = squares.published()
    suggested = {task: row for task, row in shown.items() if row.kind in ("ranked", "control")}
    assert suggested
    agreement = []
    for task, row in suggested.items():
        kinds = [result["type"] for result in row.shown]
        assert kinds.count("rectanglelabels") == 3 and kinds.count("textarea") == 1
        assert row.why.startswith("Drawn by the model: square. Least sure in the rectangles (3).\nWhy now: ")
        found = decode_masks(SCHEMA, row.shown, HEIGHT, WIDTH)
        assert found.problems == ()
        both, truth = found.masks["mask"][0], squares.masks[task - 1]
        agreement.append(2 * (both & truth).sum() / (both.sum() + truth.sum()))
        assert all(0 <= patch.score <= 1 for patch in found.patches if patch.score is not None)
    assert np.mean(agreement) > 0.8
    for row in shown.values():
        if row.kind in ("blind", "holdout"):
            assert [result["type"] for result in row.shown] == ["textarea"]


def test_the_loop_knows_how_well_it_draws(squares: Squares) -> None:
    with squares.store.begin() as session:
        version = session.get_one(Version, (PROJECT, 1))
    figures = version.metrics["mask"]
    assert figures["n"] > 0 and figures["dice"] == figures["classes"]["square"] > 0.8
    assert figures["adjudicated"] == 0
    assert version.labels == len(
        Marked.load(squares.registry.version(PROJECT, 1) / "marked.json").trained(folds_of(squares))
    )


def folds_of(squares: Squares) -> Any:
    from backend.snapshot import Snapshot

    return Snapshot.load(squares.registry.version(PROJECT, 1) / "snapshot.npz").folds
