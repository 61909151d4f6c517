"""Live answers to /predict: what the worker computed, looked up; a new image is looked at within a time budget.

Label Studio makes an annotator wait for this call and gives up after 100 s, so what cannot be answered in time
abstains: exactly one entry a task, always.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import select

from backend.image_source import open_images
from backend.learning.decode import ImageError
from backend.label_studio import open_client
from backend.registry import Array, Registry, load_json
from backend.scored import Scored
from backend.settings import Settings
from tasks import queue
from tasks.client import LabelStudioError
from tasks.codec import decode_current
from tasks.images import ImageUnavailable
from tasks.present import phrases_of, present
from tasks.schema import Schema, parse_label_config
from tasks.store import Store
from tasks.tables import Project, Task
from tasks.why import Slot

log = structlog.get_logger()

BUDGET = 60.0  # seconds for new images in one call
CHUNK = 8  # new images between two looks at the clock


@dataclass(frozen=True)
class Loaded:
    """A version in memory: its scores of every task the worker saw, and where its weights are."""

    number: int
    folder: Path
    about: Mapping[str, Any]
    scored: Scored
    schema: Schema


class Live:
    """Answers for all projects of a store; a new version is noticed at the next call."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self.settings, self.store = settings, store
        self.phrases = phrases_of(settings.phrases)
        self.registry = Registry(settings.state_dir)
        self._loaded: dict[int, Loaded] = {}
        self._loading, self._computing = threading.Lock(), threading.Lock()

    def predict(self, project_id: int, tasks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """One entry {"result", "score", "model_version"} for each task ({"id", "data", ...}), in their order.

        Tasks of the hold-out, those whose image cannot be read in time, and all tasks while there is no model get an
        answer without a suggestion. The score is a constant: live answers never order the queue. Raises KeyError for
        a project that was not registered.
        """
        project = self.store.project(project_id)
        if project is None:
            raise KeyError(project_id)
        name = queue.live_name(project.version)
        if project.version is None:
            return [{"result": [], "score": 0.0, "model_version": name} for _ in tasks]
        loaded = self._load(project)
        held_out = self._held_out(project_id, [task["id"] for task in tasks])
        fresh = self._look_at(project_id, loaded, [task for task in tasks if loaded.scored.of(task["id"]) is None])
        return [
            {"result": self._answer(loaded, task, task["id"] in held_out, fresh), "score": 0.0, "model_version": name}
            for task in tasks
        ]

    def _answer(
        self, loaded: Loaded, task: Mapping[str, Any], held_out: bool, fresh: Mapping[int, dict[str, Any]]
    ) -> list[dict[str, Any]]:
        probabilities = loaded.scored.of(task["id"]) or fresh.get(task["id"]) or {}
        recorded, _ = decode_current(loaded.schema, task["data"])
        slot: Slot = "holdout" if held_out else "ranked" if probabilities else "abstain"
        return present(loaded.schema, self.phrases, probabilities, recorded, slot, "asked")[1]

    def _load(self, project: Project) -> Loaded:
        assert project.version is not None
        with self._loading:
            loaded = self._loaded.get(project.id)
            if loaded is None or loaded.number != project.version:
                folder = self.registry.version(project.id, project.version)
                about = load_json(folder / "model.json")
                loaded = Loaded(
                    project.version,
                    folder,
                    about,
                    Scored.load(folder / "predictions.npz"),
                    parse_label_config(project.label_config),
                )
                self._loaded[project.id] = loaded
                log.info("model loaded", project=project.id, version=project.version)
            return loaded

    def _held_out(self, project_id: int, ids: Sequence[int]) -> set[int]:
        found: set[int] = set()
        with self.store.begin() as session:
            for start in range(0, len(ids), 500):
                query = select(Task.id).where(
                    Task.project_id == project_id, Task.fold == -1, Task.id.in_(ids[start : start + 500])
                )
                found.update(session.scalars(query))
        return found

    def _look_at(
        self, project_id: int, loaded: Loaded, tasks: Sequence[Mapping[str, Any]]
    ) -> dict[int, dict[str, Array]]:
        """Probabilities of tasks that the worker has not seen yet, as far as the budget reaches."""
        if not tasks or not loaded.about["heads"]:
            return {}
        from backend import newcomers  # torch takes seconds to import: only a new image pays for it

        client = open_client(self.settings, 20.0)
        images = open_images(self.settings, client)
        pixel_limit = int(self.settings.max_megapixels * 1e6)
        found: dict[int, dict[str, Array]] = {}
        deadline = time.monotonic() + BUDGET
        try:
            with self._computing:  # one thread at a time: the others would only share the same cores
                for start in range(0, len(tasks), CHUNK):
                    if time.monotonic() > deadline:
                        log.warning("new images left for the next cycle", tasks=len(tasks) - start)
                        break
                    chunk = tasks[start : start + CHUNK]
                    urls = [str(task["data"].get(loaded.schema.image_field) or "") for task in chunk]
                    good: dict[int, bytes] = {}
                    reasons: dict[int, str] = {}
                    for index, data in images.fetch_many(urls, project_id, CHUNK):
                        if isinstance(data, ImageUnavailable):
                            reasons[chunk[index]["id"]] = str(data)
                        else:
                            good[chunk[index]["id"]] = data
                    said = newcomers.predict(loaded.folder, loaded.about, list(good.values()), pixel_limit)
                    for task_id, outcome in zip(good, said, strict=True):
                        if isinstance(outcome, ImageError):
                            reasons[task_id] = str(outcome)
                        else:
                            found[task_id] = outcome
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
