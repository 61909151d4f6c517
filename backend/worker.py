"""The worker: reconciles with Label Studio, keeps the queue filled, and runs cycles in a thread of its own.

Training never stands between an annotator and the next task: while a cycle runs, this loop goes on.
"""

import threading
import time
from collections.abc import Callable

import httpx
import structlog
from sqlalchemy import select

from backend import jobs, plan, schedule
from backend.cycle import Cycle, Stopped
from backend.registry import Registry
from backend.settings import Settings
from tasks import ledger, queue, sync
from tasks.client import Client, LabelStudioError
from tasks.image_cache import ImageCache
from tasks.images import Images
from tasks.pace import head_size
from tasks.schema import SchemaError
from tasks.store import Store
from tasks.tables import Job, Project

log = structlog.get_logger()

BREATH = 0.25  # seconds between two looks at the bell
DEBOUNCE = 1.0  # seconds between two reconciles of a ringing bell
SWEEP_EVERY = 600.0  # seconds between two looks for predictions that nobody needs


class Worker:
    """One worker over all projects of a store."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self.settings, self.store = settings, store
        self.registry = Registry(settings.state_dir)
        self.client = Client(settings.label_studio_url, settings.label_studio_token.get_secret_value())
        self.images = Images(
            self.client.base_url,
            self.client.http,
            ImageCache(settings.state_dir / "images", int(settings.image_cache_gb * 1e9)),
            settings.max_image_mb * 1_000_000,
        )
        self.bell = jobs.Bell(settings)
        self.me = jobs.owner()
        self.stopping = threading.Event()
        self._cycle: threading.Thread | None = None
        self._swept = 0.0

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        """Work until `stopping` is set or `until` holds; a running cycle is then left for the next worker."""
        log.info("worker started", worker=self.me, label_studio=self.settings.label_studio_url)
        while not self.stopping.is_set() and not until():
            started = time.monotonic()
            jobs.renew(self.store, self.me)
            self.look_after_all()
            self._start_job()
            while not self.stopping.wait(BREATH) and not until():
                elapsed = time.monotonic() - started
                if elapsed > self.settings.poll_seconds or (elapsed > DEBOUNCE and self._called()):
                    break
        self.stopping.set()
        if self._cycle is not None:
            self._cycle.join()
        log.info("worker stopped", worker=self.me)

    def _called(self) -> bool:
        """Whether something rang, or a cycle ended or waits to begin."""
        idle = self._cycle is None or not self._cycle.is_alive()
        if self._cycle is not None and idle:
            self._cycle = None
            return True
        return bool(self.bell.rung()) or (idle and self._queued())

    def _queued(self) -> bool:
        with self.store.begin() as session:
            return session.scalars(select(Job.id).where(Job.state == "queued").limit(1)).first() is not None

    def look_after_all(self) -> None:
        """Look after every project; what goes wrong with one is its alarm and costs the others nothing."""
        with self.store.begin() as session:
            projects = session.scalars(select(Project.id)).all()
        sweeping = time.monotonic() - self._swept > SWEEP_EVERY
        for project_id in projects:
            try:
                alarms = self.look_after(project_id, sweeping)
            except (LabelStudioError, httpx.HTTPError, SchemaError) as error:
                log.warning("project cannot be looked after", project=project_id, error=str(error))
                alarms = [str(error)]
            except Exception as error:  # a fault of ours with one project must not stop the worker for all
                log.exception("project cannot be looked after", project=project_id)
                alarms = [f"{type(error).__name__}: {error}"]
            with self.store.begin() as session:
                session.get_one(Project, project_id).alarms = alarms
        if sweeping:
            self._swept = time.monotonic()

    def look_after(self, project_id: int, sweeping: bool) -> list[str]:
        """Reconcile one project, repair and refill its queue, ask for a training when one is due.

        Returns alarms for an admin. Raises what Label Studio's calls raise.
        """
        sync.reconcile(self.store, self.client, project_id)
        repaired = queue.guard(self.store, self.client, project_id)
        with self.store.begin() as session:
            project = session.get_one(Project, project_id)
        published, settings = project.published, self.settings.tuned(project.extra_params)
        if published is not None:
            if queue.wants_refill(self.store, self.client, project_id):
                self._refill(project_id, published, settings)
            queue.push(self.store, self.client, project_id, published)  # also what a kill left unsent
            if sweeping:
                queue.sweep(self.store, self.client, project_id, self.settings.task_lock_hours)
        if reason := schedule.training_due(self.store, settings, project_id):
            jobs.request(self.store, project_id, "cycle", reason)
        return repaired

    def _refill(self, project_id: int, version: int, settings: Settings) -> None:
        size = head_size(self.store, project_id, settings.batch_size, settings.head_hours)
        wanted = size - len(queue.open_head(self.store, project_id))
        added = plan.extend_head(self.store, self.registry, settings, project_id, version, wanted)
        with self.store.begin() as session:
            ledger.append(session, project_id, "refilled", {"version": version, "tasks": added})
        log.info("refilled the queue", project=project_id, version=version, tasks=added)

    def _start_job(self) -> None:
        """Take a job if none of ours runs."""
        if self._cycle is not None and self._cycle.is_alive():
            return
        job = jobs.claim(self.store, self.me)
        if job is not None:
            self._cycle = threading.Thread(target=self._run_cycle, args=(job,), name=f"cycle-{job.id}")
            self._cycle.start()

    def _run_cycle(self, job: Job) -> None:
        cycle = Cycle(
            self.store,
            self.client,
            self.images,
            self.registry,
            self.settings,
            job.id,
            job.project_id,
            self.stopping,
        )
        try:
            cycle.run()
        except Stopped:
            jobs.release(self.store, job.id)
            return
        except Exception as error:  # whatever it is, the job must say so and the others must go on
            log.exception("cycle failed", project=job.project_id, job=job.id)
            jobs.finish(self.store, job.id, error=f"{type(error).__name__}: {error}")
            return
        jobs.finish(self.store, job.id)
