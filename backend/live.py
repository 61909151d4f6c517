"""Live answers to /predict: what the worker computed, looked up; a new image is looked at within a time budget.

Label Studio makes an annotator wait for this call and gives up after 100 s, so what cannot be answered in time
abstains: exactly one entry a task, always.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Row, select

from backend import regions
from backend.image_source import open_images
from backend.label_studio import open_client
from backend.learning.decode import ImageError
from backend.learning.folds import HOLDOUT
from backend.registry import Array, Registry, load_json
from backend.scored import Scored, of_version
from backend.settings import Settings
from backend.survivors import columns
from tasks import queue
from tasks.client import LabelStudioError
from tasks.codec import Result, decode_current
from tasks.images import ImageUnavailable
from tasks.present import phrases_of, present
from tasks.schema import Schema, parse_label_config
from tasks.store import Store
from tasks.tables import Project, Task
from tasks.why import Slot

log = structlog.get_logger()

BUDGET = 60.0  # seconds for new images in one call
CHUNK = 8  # new images between two looks at the clock
KEPT = 4  # projects whose scores stay in memory: up to 100 MB each at 120,000 tasks


@dataclass(frozen=True)
class Loaded:
    """A version in memory: its scores of every task the worker saw, under the present label config.

    state: what it was made from; when that is another one, it is loaded anew. said: the scores as the version has
    them, with heads and classes of its own time.
    """

    state: tuple[Any, ...]
    folder: Path
    about: Mapping[str, Any]
    said: Scored
    schema: Schema

    @cached_property
    def scored(self) -> Scored:
        """The scores of the heads that are still asked for."""
        return self.said.under(self.schema.learnt)

    def present(self, probabilities: Mapping[str, Array]) -> dict[str, Array]:
        """What the version says of a new image, per head (C,), of the heads that are still asked for."""
        order = columns(self.said.answers, self.schema.heads)
        return {head: probabilities[head][order[head]] for head in order if head in probabilities}


class Live:
    """Answers for all projects of a store; a new version is noticed at the next call."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self.settings, self.store = settings, store
        self.phrases = phrases_of(settings.phrases)
        self.registry = Registry(settings.state_dir)
        self._loaded: OrderedDict[int, Loaded] = OrderedDict()
        self._loading, self._computing = threading.Lock(), threading.Lock()

    def predict(self, project_id: int, tasks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """One entry {"result", "score", "model_version"} for each task ({"id", "data", ...}), in their order.

        Tasks of the hold-out, those whose image cannot be read in time, and all tasks while there is no model get an
        answer without a suggestion; masks are drawn by the worker alone. The score is a constant: live answers never
        order the queue. Raises KeyError for a project that was not registered.
        """
        project = self.store.project(project_id)
        if project is None:
            raise KeyError(project_id)
        name = queue.live_name(project.version)
        if project.version is None:
            return [{"result": [], "score": 0.0, "model_version": name} for _ in tasks]
        loaded = self._load(project)
        rows = self._rows(project_id, [task["id"] for task in tasks])
        unknown = [task for task in tasks if not _is_known(loaded, task, rows.get(task["id"]))]
        new = {task["id"] for task in unknown}
        fresh = self._look_at(project_id, loaded, unknown)
        answers = []
        for task in tasks:
            probabilities = fresh.get(task["id"]) if task["id"] in new else loaded.scored.of(task["id"])
            row = rows.get(task["id"])
            held_out = row is not None and row.fold == HOLDOUT
            drawn = None
            if row is not None and task["id"] not in new and loaded.scored.drawn:
                drawn = regions.of_task(loaded.folder, task["id"], row.pixels, loaded.schema)
            result = self._answer(loaded, task, held_out, probabilities or {}, drawn)
            answers.append({"result": result, "score": 0.0, "model_version": name})
        return answers

    def _answer(
        self,
        loaded: Loaded,
        task: Mapping[str, Any],
        held_out: bool,
        probabilities: Mapping[str, Array],
        drawn: list[Result] | None,
    ) -> list[Result]:
        recorded, _ = decode_current(loaded.schema, task["data"])
        known = bool(probabilities) or drawn is not None
        slot: Slot = "holdout" if held_out else "ranked" if known else "abstain"
        return present(loaded.schema, self.phrases, probabilities, recorded, slot, "asked", regions=drawn)[1]

    def _load(self, project: Project) -> Loaded:
        assert project.version is not None
        folder = self.registry.version(project.id, project.version)
        later = folder / "later.npz"
        state = (project.version, later.stat().st_mtime_ns if later.exists() else 0, project.label_config)
        with self._loading:
            loaded = self._loaded.get(project.id)
            if loaded is None or loaded.state != state:
                about, schema = load_json(folder / "model.json"), parse_label_config(project.label_config)
                loaded = Loaded(state, folder, about, of_version(folder), schema)
                self._loaded[project.id] = loaded
                log.info("model loaded", project=project.id, version=project.version)
            self._loaded.move_to_end(project.id)
            while len(self._loaded) > KEPT:
                self._loaded.popitem(last=False)
            return loaded

    def _rows(self, project_id: int, ids: Sequence[int]) -> dict[int, Row[Any]]:
        """What the store has of these tasks, also of deleted ones: fold, pixels, image, deleted_at."""
        found: dict[int, Row[Any]] = {}
        with self.store.begin() as session:
            for start in range(0, len(ids), 500):
                query = select(Task.id, Task.fold, Task.pixels, Task.image, Task.deleted_at).where(
                    Task.project_id == project_id, Task.id.in_(ids[start : start + 500])
                )
                found |= {row.id: row for row in session.execute(query)}
        return found

    def _look_at(
        self, project_id: int, loaded: Loaded, tasks: Sequence[Mapping[str, Any]]
    ) -> dict[int, dict[str, Array]]:
        """Probabilities of tasks that the worker has not seen yet, as far as the budget reaches.

        An image that several tasks show is looked at once.
        """
        if not tasks or not loaded.about["heads"] or "backbones" not in loaded.about:
            return {}
        from backend import newcomers  # torch takes seconds to import: only a new image pays for it

        showing: dict[str, list[int]] = {}
        for task in tasks:
            showing.setdefault(str(task["data"].get(loaded.schema.image_field) or ""), []).append(task["id"])
        urls = list(showing)
        client = open_client(self.settings, 20.0)
        images = open_images(self.settings, client)
        pixel_limit = int(self.settings.max_megapixels * 1e6)
        found: dict[int, dict[str, Array]] = {}
        deadline = time.monotonic() + BUDGET
        try:
            with self._computing:  # one thread at a time: the others would only share the same cores
                for start in range(0, len(urls), CHUNK):
                    if time.monotonic() > deadline:
                        log.warning("new images left for the next cycle", images=len(urls) - start)
                        break
                    chunk = urls[start : start + CHUNK]
                    good: dict[str, bytes] = {}
                    reasons: dict[int, str] = {}
                    for index, data in images.fetch_many(chunk, project_id, CHUNK):
                        if isinstance(data, ImageUnavailable):
                            reasons |= dict.fromkeys(showing[chunk[index]], str(data))
                        else:
                            good[chunk[index]] = data
                    said = newcomers.predict(loaded.folder, loaded.about, list(good.values()), pixel_limit)
                    for url, outcome in zip(good, said, strict=True):
                        if isinstance(outcome, ImageError):
                            reasons |= dict.fromkeys(showing[url], str(outcome))
                        else:
                            found |= dict.fromkeys(showing[url], loaded.present(outcome))
                    self._note(project_id, reasons)
        except LabelStudioError as error:
            log.warning("new images cannot be fetched", error=str(error))
        finally:
            images.close()
            client.close()
        return found

    def _note(self, project_id: int, reasons: Mapping[int, str]) -> None:
        """Leave the reasons why images cannot be used where `status` finds them."""
        if not reasons:
            return
        with self.store.begin() as session:
            query = select(Task).where(Task.project_id == project_id, Task.id.in_(list(reasons)), Task.pixels.is_(None))
            for task in session.scalars(query):
                task.image_error = reasons[task.id]
        for task_id, reason in reasons.items():
            log.warning("image cannot be used", project=project_id, task=task_id, reason=reason)


def _is_known(loaded: Loaded, task: Mapping[str, Any], row: Row[Any] | None) -> bool:
    """Whether the version was asked about the image that the task shows now."""
    place = loaded.scored.row_of.get(task["id"])
    if place is None or row is None:
        return place is not None
    if row.deleted_at is not None or row.image != str(task["data"].get(loaded.schema.image_field) or ""):
        return False  # a new task under an old number, or another image
    return str(loaded.scored.pixels[place]) in ("", row.pixels)  # imported probabilities know no images
