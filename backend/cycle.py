"""One active-learning cycle, step by step: images, folds, backbones, embeddings, heads, scores, publication.

A cycle may be killed anywhere. What each step makes is a file that appears whole, made from a snapshot of the labels
that was written first; a resumed cycle finds them and ends with the same weights.
"""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from sqlalchemy import select

from backend import backbones, embeddings, jobs, pictures, plan
from backend.evaluation.metrics import evaluate
from backend.learning import crossfit
from backend.learning.arrays import PixelFiles
from backend.learning.backbone import Backbone, Progress, embed, with_reachable_weights
from backend.learning.config import LearningConfig
from backend.learning.fold_backbones import load_backbones
from backend.learning.folds import HOLDOUT
from backend.learning.weights import save_crossfit
from backend.registry import Registry, load_json, save_json
from backend.scored import Floats, Scored, score
from backend.settings import Settings
from backend.snapshot import Snapshot, take
from tasks import ledger, queue
from tasks.client import Client
from tasks.images import Images
from tasks.pace import head_size
from tasks.schema import Head, parse_label_config
from tasks.store import Store, lock_project
from tasks.tables import Annotation, Job, Project, Version

log = structlog.get_logger()

REPORT_EVERY = 1.0  # seconds between two notes of progress
SETTLE_EVERY = 2.0  # seconds between two looks for an import that was cut off


class Stopped(Exception):
    """The worker is to stop: the cycle is left as it is, for the next worker to go on with."""


class NoTasks(RuntimeError):
    """There is nothing to learn from or to order yet."""


class Cycle:
    """One job of kind `cycle`."""

    def __init__(
        self,
        store: Store,
        client: Client,
        images: Images,
        registry: Registry,
        settings: Settings,
        job_id: int,
        project_id: int,
        stopping: threading.Event,
    ) -> None:
        self.store, self.client, self.images, self.registry = store, client, images, registry
        self.settings, self.job_id, self.project_id = settings, job_id, project_id
        self.stopping = stopping
        self._reported = 0.0

    def run(self) -> int:
        """Run, or go on with, the cycle; returns the number of the version it made and published.

        Raises Stopped, NoTasks, and what Label Studio's calls and the learning raise.
        """
        self.number = jobs.next_version(self.store, self.job_id)
        self.folder = self.registry.version(self.project_id, self.number)
        project = self.store.project(self.project_id)
        assert project is not None  # a job belongs to a project
        self.label_config = project.label_config
        self.settings = self.settings.tuned(project.extra_params)
        self.schema = parse_label_config(self.label_config)

        taken = self._snapshot()
        heads = taken.learnable(self.schema.heads)
        config, folder = self._backbones(taken, heads)
        members = self._embeddings(taken, config, folder)
        scored = self._score(taken, heads, config, members)
        self._complete(taken, heads, scored, config, folder)
        self._publish()
        return self.number

    def _begin(self, step: str) -> Callable[[int, int], None]:
        """Name the step in the job, and give it a function to report progress to."""
        log.info("cycle", project=self.project_id, version=self.number, step=step)
        jobs.report(self.store, self.job_id, step=step, done=0, total=0)

        def progress(done: int, total: int) -> None:
            if self.stopping.is_set():
                raise Stopped
            if time.monotonic() - self._reported > REPORT_EVERY or done == total:
                self._reported = time.monotonic()
                jobs.report(self.store, self.job_id, done=done, total=total)

        progress(0, 0)
        return progress

    def _snapshot(self) -> Snapshot:
        path = self.folder / "snapshot.npz"
        if path.exists():
            return Snapshot.load(path)
        pictures.read_images(
            self.store, self.images, self.registry, self.settings, self.project_id, self._begin("reading images")
        )
        pictures.assign_folds(self.store, self.schema, self.settings, self.project_id)
        taken = take(self.store, self.schema, self.project_id)
        if not len(taken.ids):
            raise NoTasks("the project has no task with a readable image yet; `status` names those that failed")
        taken.save(path)
        return taken

    def _backbones(self, taken: Snapshot, heads: tuple[Head, ...]) -> tuple[LearningConfig, Path]:
        """The learning config in force, and the folder of the backbones to use."""
        progress = self._begin("training backbones")
        choice = self.folder / "backbones.json"
        if not choice.exists():
            config, said = with_reachable_weights(self.settings.learning)
            if said is not None:
                log.warning("no pretrained weights", project=self.project_id, reason=said)
            number = backbones.choose(self.registry, self.project_id, self.number, taken, heads, config)
            save_json(choice, {"number": number, "weights": config.weights})
        chosen: dict[str, Any] = load_json(choice)
        config = self.settings.model_copy(update={"weights": chosen["weights"]}).learning
        folder = self.registry.backbones(self.project_id, chosen["number"])
        backbones.make(folder, taken, heads, config, self._pixels(config, taken.pixels), progress)
        return config, folder

    def _pixels(self, config: LearningConfig, digests: Iterable[str]) -> PixelFiles:
        return PixelFiles([self.registry.pixels(config.image_size, str(digest)) for digest in digests])

    def _embeddings(self, taken: Snapshot, config: LearningConfig, folder: Path) -> list[Floats]:
        """Embeddings (N, D) from each backbone: read from disk but for the images that are new."""
        progress = self._begin("embedding images")
        for member, backbone in enumerate(load_backbones(folder)):
            embeddings.extend(
                folder,
                member,
                taken.pixels.tolist(),
                partial(self._embed, backbone, config, progress),
            )
        return [
            embeddings.load(folder, member, taken.pixels.tolist())
            for member in range(len(list(folder.glob("backbone-*"))))
        ]

    def _embed(self, backbone: Backbone, config: LearningConfig, progress: Progress, digests: Sequence[str]) -> Floats:
        return embed(backbone, self._pixels(config, digests), progress=progress)

    def _score(self, taken: Snapshot, heads: tuple[Head, ...], config: LearningConfig, members: list[Floats]) -> Scored:
        """Fit the heads of every fold and score every task."""
        path = self.folder / "predictions.npz"
        if path.exists():
            return Scored.load(path)
        self._begin("fitting heads")
        blocks = []
        if heads:
            targets = {head.name: taken.targets[head.name] for head in heads}
            fit = crossfit.cross_fit(
                members,
                targets,
                taken.folds,
                heads,
                config,
                groups=taken.groups.tolist(),
                adjudicated=np.logical_or.reduce([taken.adjudicated[head.name] for head in heads]),
            )
            save_crossfit(fit, self.folder / "heads.safetensors")
            blocks = crossfit.predict(fit, members, taken.folds, crossfit.labelled_rows(targets))
        scored = score(
            taken.ids,
            taken.pixels,
            self.schema.heads,
            [(block.rows, block.members) for block in blocks],
            taken.recorded,
            self.settings.uncertainty,
            self.settings.disagreement_threshold,
        )
        scored.save(path)
        return scored

    def _complete(
        self, taken: Snapshot, heads: tuple[Head, ...], scored: Scored, config: LearningConfig, folder: Path
    ) -> None:
        """Evaluate on the hold-out, and let the version become the project's."""
        self._begin("evaluating")
        held = taken.folds == HOLDOUT
        metrics = {
            head.name: evaluate(head, scored.probabilities[head.name][held], taken.targets[head.name][held])
            | {"adjudicated": int(taken.adjudicated[head.name][held].sum())}
            for head in heads
        }
        about = {
            "version": self.number,
            "schema": self.schema.fingerprint(),
            "label_config": self.label_config,
            "heads": [head.name for head in heads],
            "backbones": folder.name,
            "learning": asdict(config),
            "data": taken.fingerprint(),
            "labels": int(taken.labelled.sum()),
            "holdout": metrics,
        }
        save_json(self.folder / "model.json", about)
        with self.store.begin() as session:
            lock_project(session, self.project_id)  # an annotation must not change between the look and the mark
            if session.get(Version, (self.project_id, self.number)) is not None:
                return
            job = session.get_one(Job, self.job_id)
            session.add(
                Version(
                    project_id=self.project_id,
                    number=self.number,
                    created_at=time.time(),
                    seconds=time.time() - (job.started_at or time.time()),
                    schema=about["schema"],
                    labels=about["labels"],
                    metrics=metrics,
                )
            )
            session.get_one(Project, self.project_id).version = self.number
            learnt = dict(zip(taken.annotations.tolist(), taken.updated.tolist(), strict=True))
            for row in session.scalars(select(Annotation).where(Annotation.project_id == self.project_id)):
                if learnt.get(row.id) == row.updated_at:
                    row.trained_in = self.number
            ledger.append(session, self.project_id, "trained", {"version": self.number, "data": about["data"]})
        log.info("trained", project=self.project_id, version=self.number, labels=about["labels"])

    def _publish(self) -> None:
        """Publish the head of the new order, then let it take over."""
        self._begin("publishing the queue")
        size = head_size(self.store, self.project_id, self.settings.batch_size, self.settings.head_hours)
        with self.store.turn(self.project_id):
            wanted = size - queue.size(self.store, self.project_id, self.number)  # a killed attempt may have begun
            plan.extend_head(self.store, self.registry, self.settings, self.project_id, self.number, max(wanted, 0))
            self._push()
            queue.flip(self.store, self.client, self.project_id, self.number)

    def _push(self) -> None:
        while True:
            try:
                queue.push(self.store, self.client, self.project_id, self.number)
                return
            except queue.Unsettled as error:
                log.warning("waiting", project=self.project_id, version=self.number, reason=str(error))
            if self.stopping.wait(SETTLE_EVERY):
                raise Stopped
