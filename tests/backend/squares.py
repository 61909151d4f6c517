"""A loop over masks with a Label Studio in memory, quick enough to be run in a test: images of a bright square each."""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from backend import jobs, pictures, regions
from backend.catch_up import CatchUp
from backend.cycle import Cycle
from backend.marked import Marked
from backend.marked import take as take_marks
from backend.marking import Seen
from backend.registry import Registry
from backend.replay.label_studio import PROJECT, ReplayImages, ReplayLabelStudio
from backend.scored import Scored, score
from backend.settings import Settings
from backend.snapshot import Snapshot, take
from backend.work import Work
from tasks import sync
from tasks.client import Client
from tasks.images import Images
from tasks.mask_codec import Patch, encode_masks
from tasks.schema import parse_label_config
from tasks.store import Store
from tasks.tables import Project, Published, Task, Version

CONFIG = """<View><Image name="image" value="$image" model_group="$patient" model_site="$site"/>
<BrushLabels name="mask" toName="image"><Label value="square"/></BrushLabels>
<RectangleLabels name="look" toName="image" model_role="look"><Label value="look here"/></RectangleLabels>
<Choices name="scope" toName="image" model_role="scope">
<Choice value="rectangles" alias="patches"/><Choice value="all" alias="image"/></Choices>
<TextArea name="why" toName="image" model_role="why" editable="false" maxSubmissions="1"/></View>"""
SCHEMA = parse_label_config(CONFIG)
HEIGHT, WIDTH, COUNT = 48, 64, 24


class Killed(BaseException):
    """As a kill: nothing of ours catches it."""


class Killing(threading.Event):
    """An event that is asked with every note of progress, and kills after so many."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._left = steps

    def is_set(self) -> bool:
        self._left -= 1
        if self._left < 0:
            raise Killed
        return False


class Squares:
    """Images of a bright square each, half of which carry an imported mask, in a loop of their own."""

    def __init__(self, folder: Path, marked: int = COUNT // 2, config: str = CONFIG, count: int = COUNT) -> None:
        folder.mkdir(exist_ok=True)
        rng = np.random.default_rng(0)
        self.masks = np.zeros((count, HEIGHT, WIDTH), dtype=bool)
        files, data = {}, []
        for number in range(count):
            pixels = rng.integers(0, 60, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            top, left = rng.integers(2, 26, 2)
            pixels[top : top + 20, left : left + 20] += 150
            self.masks[number, top : top + 20, left : left + 20] = True
            files[f"{number}.png"] = folder / f"{number}.png"
            Image.fromarray(pixels).save(files[f"{number}.png"])
            data.append({"image": f"{number}.png", "patient": f"p{number}", "site": "ab"[number % 2]})
            data[-1]["half"] = "left" if left < 14 else "right"
        self.label_studio = ReplayLabelStudio(config, data)
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
        self.store.register_project(PROJECT, config, connection="poll")

    def drawn(self, task: int) -> list[dict[str, Any]]:
        return as_result(self.masks[task - 1])

    def record(self, task: int, result: list[dict[str, Any]]) -> None:
        """An annotation that was imported before anybody reviewed anything."""
        self.label_studio.answer(task, result)
        self.label_studio._tasks[task]["annotations"][-1] |= {"updated_by": None, "parent_prediction": None}

    def folds(self) -> dict[int, int]:
        with self.store.begin() as session:
            return {task.id: cast(int, task.fold) for task in session.query(Task).all()}

    def cycle(self, steps: int | None = None) -> Path:
        """Run a cycle, which is killed after so many notes of progress."""
        return self.registry.version(PROJECT, self._run(Cycle, threading.Event() if steps is None else Killing(steps)))

    def catch_up(self) -> int:
        """Look at tasks that came later; returns how many."""
        return self._run(CatchUp, threading.Event())

    def _run(self, work: type[Work], stopping: threading.Event) -> int:
        client = cast(Client, self.label_studio)
        sync.reconcile(self.store, client, PROJECT)
        jobs.request(self.store, PROJECT, work.kind, "test")
        job = jobs.claim(self.store, "test")
        assert job is not None
        parts = (self.store, client, cast(Images, self.images), self.registry, self.settings, job.id, PROJECT)
        try:
            made = work(*parts, stopping).run()
        except Killed:
            jobs.release(self.store, job.id, "test")
            raise
        jobs.finish(self.store, job.id, "test")
        return made

    def published(self) -> dict[int, Published]:
        with self.store.begin() as session:
            version = session.query(Version).order_by(Version.number.desc()).first()
            assert version is not None
            rows = session.query(Published).where(Published.version == version.number).all()
        return {row.task_id: row for row in rows}


class HandDrawn(Squares):
    """The same with versions as a cycle leaves them, whose masks are drawn by hand: nothing is trained.

    Every other task has its mask on record.
    """

    def __init__(self, folder: Path, count: int = 80) -> None:
        super().__init__(folder, marked=0, count=count)
        for task in range(1, count + 1, 2):
            self.record(task, self.drawn(task))
        self.look()

    def look(self) -> None:
        """Read tasks, annotations and images, and give folds."""
        sync.reconcile(self.store, cast(Client, self.label_studio), PROJECT)
        parts = (self.store, cast(Images, self.images), self.registry, self.settings, PROJECT, lambda *_: None)
        pictures.read_images(*parts, whole=True)
        before = self.registry.version(PROJECT, 0) / "snapshot.npz"
        pictures.assign_folds(self.store, SCHEMA, self.settings, PROJECT, before)

    def leave(
        self, number: int, masks: NDArray[np.bool_], quality: Mapping[int, float] | None = None, in_force: bool = True
    ) -> tuple[Snapshot, Marked, Scored]:
        """A version that draws these masks (count, H, W), and gives masks on record this quality, 0.8 where none is
        given."""
        folder, taken = self.registry.version(PROJECT, number), take(self.store, CONFIG, PROJECT)
        taken.save(folder / "snapshot.npz")
        marked = take_marks(self.store, self.registry, SCHEMA, taken, PROJECT)
        marked.save(folder / "marked.json")
        given = np.full((len(taken.ids), 1), np.nan, dtype=np.float32)
        for row, task in enumerate(taken.ids.tolist()):
            if marked.painted[row] and not marked.people[row]:
                given[row] = (quality or {}).get(task, 0.8)
            results = as_result(masks[task - 1])
            told = {"uncertainty": 0.1, "quality": given[row].tolist(), "dice": [float("nan")]}
            unsure = np.full((HEIGHT, WIDTH), 0.25, dtype=np.float32)
            regions.keep(folder, task, str(taken.pixels[row]), results, told, unsure)
        drawn = Seen(np.full(len(given), 0.1, dtype=np.float32), given, given).by_head(SCHEMA)
        scored = score(taken.ids, taken.pixels, SCHEMA.masks, [], {}, "entropy", drawn=drawn)
        scored.save(folder / "predictions.npz")
        metrics = {"mask": {"n": 1, "adjudicated": 0, "dice": 0.1 * number, "classes": {"square": 0.1 * number}}}
        about = {"created_at": 2e9 + number, "seconds": 1.0, "schema": SCHEMA.fingerprint(), "labels": 40}
        with self.store.begin() as session:
            session.add(Version(project_id=PROJECT, number=number, metrics=metrics, **about))
            if in_force:
                session.get_one(Project, PROJECT).version = number
        return taken, marked, scored


def as_result(mask: NDArray[np.bool_]) -> list[dict[str, Any]]:
    return encode_masks(SCHEMA, HEIGHT, WIDTH, {"mask": mask[None]}, {"mask": [1.0]})


def moved(masks: NDArray[np.bool_], pixels: int) -> NDArray[np.bool_]:
    """Masks (N, H, W) so many pixels further right."""
    found = np.zeros_like(masks)
    found[:, :, pixels:] = masks[:, :, : masks.shape[2] - pixels]
    return found


def scope(said: str) -> dict[str, Any]:
    return {"from_name": "scope", "to_name": "image", "type": "choices", "value": {"choices": [said]}}


def rectangle(x: int, y: int, width: int, height: int) -> dict[str, Any]:
    (result,) = encode_masks(SCHEMA, HEIGHT, WIDTH, {}, {}, [Patch(x, y, width, height)])
    return result
