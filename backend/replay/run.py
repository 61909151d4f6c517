"""One replay: the live loop's own steps over images whose truth is known, with an oracle in Label Studio's place.

Reconcile, train, score, order, publish, answer, and again: `sync`, `Cycle` and `plan` as the worker runs them. A seed
decides which labels are wrong, the folds and the training; all strategies go on from the same first model.
"""

import copy
import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from sqlalchemy import select

from backend import jobs
from backend.cycle import Cycle
from backend.evaluation.metrics import evaluate
from backend.learning.folds import HOLDOUT
from backend.registry import Registry
from backend.replay.label_studio import PROJECT, ReplayImages, ReplayLabelStudio
from backend.replay.material import Material
from backend.replay.strategies import STRATEGIES
from backend.scored import Floats, Scored, of_version
from backend.settings import Settings
from tasks import sync
from tasks.client import Client
from tasks.codec import encode_labels, to_targets
from tasks.images import Images
from tasks.labels import by_task, settle
from tasks.queue import open_head
from tasks.schema import Head, Labels
from tasks.store import Store
from tasks.tables import Annotation, Project, Task

WORKER = "replay"


@dataclass(frozen=True)
class Moment:
    """What holds after so many answers, of the first head. Figures are those of the hold-out, against the truth.

    unseen: the same figures of all tasks, the pool's too, each judged by models that saw neither it nor its group.
    Of the N tasks of the pool, by number: probabilities, float32 (N, C), of the version in force, out of fold where
    labelled; recorded (N, C), labels on record; doubt (N,), the loop's disagreement with these, NaN before a model;
    wrong: bool (N,) labels on record that are; answered: bool (N,).
    """

    reviewed: int
    seconds: float
    wrong_labels_left: float
    errors_found: float | None
    figures: Mapping[str, float | None]
    unseen: Mapping[str, float | None]
    probabilities: Floats
    recorded: Floats
    doubt: Floats
    wrong: np.ndarray[Any, np.dtype[np.bool_]]
    answered: np.ndarray[Any, np.dtype[np.bool_]]


class Replay:
    """A project in a folder of its own, at one moment of its loop."""

    def __init__(self, material: Material, settings: Settings, folder: Path) -> None:
        self.material, self.folder = material, folder
        self.schema = material.schema
        self.settings = settings.model_copy(update={"state_dir": folder, "database_url": "", "random_slots": False})
        self.label_studio = ReplayLabelStudio(material.label_config, material.data)
        self.store = Store.open(self.settings.database)

    def begin(self) -> None:
        """Read everything and train the first model."""
        self.store.register_project(PROJECT, self.material.label_config, connection="poll")
        self.cycle()

    def branch(self, folder: Path, **settings: Any) -> "Replay":
        """The same moment in another folder, to go on from with other settings."""
        self.store.engine.dispose()
        # Files appear whole and are never changed, so that a link does; the database is the one that is written to.
        shutil.copytree(self.folder, folder, copy_function=_link)
        found = copy.copy(self)
        found.folder, found.label_studio = folder, copy.deepcopy(self.label_studio)
        found.settings = self.settings.model_copy(update={"state_dir": folder, **settings})
        found.store = Store.open(found.settings.database)
        return found

    def cycle(self) -> None:
        """Reconcile, then train, score, order and publish."""
        client = cast(Client, self.label_studio)
        images = cast(Images, ReplayImages(self.material.files))
        sync.reconcile(self.store, client, PROJECT)
        jobs.request(self.store, PROJECT, Cycle.kind, "replay")
        job = jobs.claim(self.store, WORKER)
        assert job is not None  # it was requested just now, and nobody else is there
        registry = Registry(self.settings.state_dir)
        Cycle(self.store, client, images, registry, self.settings, job.id, PROJECT, threading.Event()).run()
        jobs.finish(self.store, job.id, WORKER)

    def answer(self, count: int) -> int:
        """Answer the first `count` tasks of the published order with the truth; returns how many there were."""
        chosen = open_head(self.store, PROJECT)[:count]
        for task in chosen:
            self.label_studio.answer(task, encode_labels(self.schema, self.material.truth[task - 1]))
        return len(chosen)

    def moment(self, reviewed: int, seconds: float) -> Moment:
        """Measure the version in force and the labels against the truth."""
        head = self.schema.heads[0]
        with self.store.begin() as session:
            project = session.get_one(Project, PROJECT)
            tasks = session.scalars(select(Task).where(Task.project_id == PROJECT).order_by(Task.id)).all()
            said = by_task(session.scalars(select(Annotation).where(Annotation.project_id == PROJECT)))
        scored = of_version(Registry(self.settings.state_dir).version(PROJECT, project.version or 0))
        known = {task.id: task for task in tasks if task.id in scored.row_of and task.fold is not None}
        held = [number for number, task in known.items() if task.fold == HOLDOUT]
        pool = [number for number, task in known.items() if task.fold != HOLDOUT]
        truth = [self.material.truth[number - 1] for number in pool]
        settled = [settle(said.get(number, []), known[number].current) for number in pool]
        wrong = _differ(head, [row.current for row in settled], truth)
        left = _differ(head, [row.labels for row in settled], truth)
        probabilities = scored.probabilities.get(head.name)
        blank = np.full((len(scored.ids), len(head.classes)), np.nan, dtype=np.float32)
        p = blank if probabilities is None else probabilities
        scores = scored.scores
        doubt = blank[:, 0] if scores is None or probabilities is None else scores.doubt(head.name)
        there = [scored.row_of[number] for number in pool]
        figures, unseen = (self._figures(scored, head, p, some) for some in (held, held + pool))
        found = int((wrong & ~left).sum())
        return Moment(
            reviewed=reviewed,
            seconds=seconds,
            wrong_labels_left=float(left.mean()) if len(left) else 0.0,
            errors_found=found / int(wrong.sum()) if wrong.any() else None,
            figures=figures,
            unseen=unseen,
            probabilities=p[there],
            recorded=_targets(head, [row.current for row in settled]),
            doubt=doubt[there],
            wrong=wrong,
            answered=np.array([head.name in row.adjudicated for row in settled], dtype=bool),
        )

    def _figures(self, scored: Scored, head: Head, p: Floats, tasks: Sequence[int]) -> Mapping[str, float | None]:
        """Those of the tasks that the model answered, by p (N, C), against the truth."""
        answered = [number for number in tasks if not np.isnan(p[scored.row_of[number]]).any()]
        truth = _targets(head, [self.material.truth[number - 1] for number in answered])
        return evaluate(head, p[[scored.row_of[number] for number in answered]], truth)


def replay(
    material: Material,
    settings: Settings,
    strategies: Sequence[str],
    budget: int,
    batch: int,
    folder: Path,
) -> Iterator[tuple[str, Moment]]:
    """Every strategy's moments, from nothing reviewed to `budget` tasks in batches of `batch`.

    settings: of the loop; its seed decides the rest. folder: new or empty, for the state of all. Raises KeyError for a
    strategy that is none, ValueError for a batch below 1, and what a cycle raises.
    """
    if batch < 1:
        raise ValueError(f"a batch has at least 1 task, not {batch}")
    chosen = {name: STRATEGIES[name] for name in strategies}
    first = Replay(
        material, settings.model_copy(update={"batch_size": -(-batch // 3), "head_hours": 0.0}), folder / "0"
    )
    first.begin()
    for name, own in chosen.items():
        began = time.monotonic()
        run = first.branch(folder / name, **own)
        run.cycle()  # the same model under the strategy's order
        reviewed = 0
        yield name, run.moment(reviewed, time.monotonic() - began)
        while reviewed < budget:
            answered = run.answer(min(batch, budget - reviewed))
            if not answered:
                break
            reviewed += answered
            run.cycle()
            yield name, run.moment(reviewed, time.monotonic() - began)
        run.store.engine.dispose()
        shutil.rmtree(run.folder)


def _link(source: str, target: str) -> None:
    if ".db" in Path(source).name:
        shutil.copy2(source, target)
    else:
        os.link(source, target)


def _targets(head: Head, labels: Sequence[Labels]) -> Floats:
    return to_targets([head], labels)[head.name]


def _differ(head: Head, one: Sequence[Labels], other: Sequence[Labels]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Where both know the head, and say different things of it."""
    pairs = ((a.get(head.name), b.get(head.name)) for a, b in zip(one, other, strict=True))
    return np.array([a is not None and b is not None and set(a) != set(b) for a, b in pairs], dtype=bool)
