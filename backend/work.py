"""What the background jobs that look at images have in common: steps that report, embeddings on disk, publication."""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy.orm import Session

from backend import embeddings, jobs, plan
from backend.learning.arrays import PixelFiles
from backend.learning.backbone import Backbone, Progress, embed
from backend.learning.config import LearningConfig
from backend.learning.fold_backbones import load_backbones
from backend.registry import Registry
from backend.scored import Floats
from backend.settings import Settings
from tasks import panel, queue, reopen
from tasks.client import Client
from tasks.images import Images
from tasks.pace import head_size
from tasks.store import Store
from tasks.tables import Job, Version

log = structlog.get_logger()

REPORT_EVERY = 1.0  # seconds between two notes of progress
SETTLE_EVERY = 2.0  # seconds between two looks for an import that was cut off


class Stopped(Exception):
    """The worker is to stop: the job is left as it is, for the next worker to go on with."""


class Work(ABC):
    """One job of a project, safe to kill anywhere and run again."""

    kind: str

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

    @abstractmethod
    def run(self) -> int:
        """Run the job, or go on with it. Raises Stopped, and whatever makes the job fail."""

    def _number(self) -> int:
        """The number of the version that this job makes, above all that the store, the folder and Label Studio know.

        A restored backup knows fewer than the other two, and a number used twice would mix two orders.
        """
        there = [queue.number_of(name) for name in self.client.model_versions(self.project_id)]
        return jobs.next_version(self.store, self.job_id, max(self.registry.newest(self.project_id), *there, 0))

    def _version(
        self,
        session: Session,
        number: int,
        schema: str,
        labels: int,
        metrics: dict[str, Any],
        verdict: dict[str, Any],
    ) -> Version:
        """The row of the version that this job has made just now."""
        started = session.get_one(Job, self.job_id).started_at
        return Version(
            project_id=self.project_id,
            number=number,
            created_at=time.time(),
            seconds=time.time() - (started or time.time()),
            schema=schema,
            labels=labels,
            metrics=metrics,
            verdict=verdict,
        )

    def _begin(self, step: str, version: int) -> Progress:
        """Name the step in the job, and give it a function to report progress to."""
        log.info(self.kind, project=self.project_id, version=version, step=step)
        jobs.report(self.store, self.job_id, step=step, done=0, total=0)

        def progress(done: int, total: int) -> None:
            if self.stopping.is_set():
                raise Stopped
            if time.monotonic() - self._reported > REPORT_EVERY or done == total:
                self._reported = time.monotonic()
                jobs.report(self.store, self.job_id, done=done, total=total)

        progress(0, 0)
        return progress

    def _pixels(self, config: LearningConfig, digests: Iterable[str]) -> PixelFiles:
        return PixelFiles([self.registry.pixels(config.image_size, str(digest)) for digest in digests])

    def _embedded(
        self, folder: Path, config: LearningConfig, digests: Sequence[str], progress: Progress
    ) -> list[Floats]:
        """Embeddings (N, D) from each backbone: read from disk but for the images that are new."""
        for member, backbone in enumerate(load_backbones(folder)):
            embeddings.extend(folder, member, digests, partial(self._embed, backbone, config), progress)
        return [embeddings.load(folder, member, digests) for member in range(len(list(folder.glob("backbone-*"))))]

    def _embed(self, backbone: Backbone, config: LearningConfig, digests: Sequence[str], progress: Progress) -> Floats:
        return embed(backbone, self._pixels(config, digests), progress=progress)

    def _publish(self, version: int) -> None:
        """Publish the head of a version's order, then let it take over; one that is published already is filled up."""
        progress = self._begin("publishing the queue", version)
        size = head_size(self.store, self.project_id, self.settings.batch_size, self.settings.head_hours)
        with self.store.turn(self.project_id):
            # A killed attempt may have begun; of a published order only what nobody has answered yet counts.
            wanted = size - queue.waiting(self.store, self.project_id, version)
            plan.extend_head(self.store, self.registry, self.settings, self.project_id, version, max(wanted, 0))
            panel.hide(self.store, self.client, self.project_id, version)
            self._push(version)
            # Before the flip: until then no order knows them, after it every task of the order is open.
            reopen.reopen(self.store, self.client, self.project_id, version, progress)
            queue.flip(self.store, self.client, self.project_id, version)
            reopen.close(self.store, self.client, self.project_id)

    def _push(self, version: int) -> None:
        while True:
            try:
                queue.push(self.store, self.client, self.project_id, version)
                return
            except queue.Unsettled as error:
                log.warning("waiting", project=self.project_id, version=version, reason=str(error))
            if self.stopping.wait(SETTLE_EVERY):
                raise Stopped
