"""The worker: reconciles with Label Studio, keeps the queue filled, and runs cycles in a thread of its own.

Training never stands between an annotator and the next task: while a cycle runs, this loop goes on.

Several workers share the projects: each looks after whichever project is due and nobody else has its turn. So a worker
that dies leaves nothing behind but the lease of its job, which lets go by itself.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx
import structlog
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from backend import acquisition, centres, connection, ending, imported, jobs, plan, promotion, renewal, schedule
from backend.catch_up import CatchUp
from backend.cycle import Cycle
from backend.image_source import open_images
from backend.label_studio import open_client
from backend.registry import Registry
from backend.settings import Settings
from backend.work import Stopped, Work
from tasks import expert, fatigue, pace, panel, queue, reopen, sweep, sync
from tasks.client import LabelStudioError
from tasks.schema import SchemaError
from tasks.store import Store
from tasks.tables import Job, Project

log = structlog.get_logger()

KINDS: dict[str, type[Work]] = {work.kind: work for work in (Cycle, CatchUp, imported.Import, promotion.Promotion)}
BREATH = 0.25  # seconds between two looks at the bell
DEBOUNCE = 1.0  # seconds between two reconciles of a ringing bell
SWEEP_EVERY = 600.0  # seconds between two looks for predictions that nobody needs
BEAT = jobs.LEASE / 6  # seconds between two signs of life


@dataclass(frozen=True)
class _Running:
    """The cycle that this worker runs."""

    job: int
    project: int
    thread: threading.Thread
    stopping: threading.Event


class Worker:
    """One worker over all projects of a store."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self.settings, self.store = settings, store
        self.registry = Registry(settings.state_dir)
        self.client = open_client(settings)
        self.images = open_images(settings, self.client)
        self.bell = jobs.Bell(settings)
        self.me = jobs.owner()
        self.stopping = threading.Event()
        self._cycle: _Running | None = None
        self._rung: set[int] = set()
        self._swept: dict[int, float] = {}

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        """Work until `stop` is called or `until` holds; a running cycle is then left for the next worker."""
        log.info("worker started", worker=self.me, label_studio=self.settings.label_studio_url)
        jobs.renew(self.store, self.me)
        ended = threading.Event()
        pulse = threading.Thread(target=self._give_signs_of_life, args=(ended,), name="pulse")
        pulse.start()
        try:
            while not self.stopping.is_set() and not until():
                started = time.monotonic()
                try:
                    self.look_after_all()
                    self._start_job()
                    while not self.stopping.wait(BREATH) and not until():
                        elapsed = time.monotonic() - started
                        if elapsed > self.settings.poll_seconds or (elapsed > DEBOUNCE and self._called()):
                            break
                except OperationalError as error:  # a database that restarts is waited for
                    log.warning("the database cannot be reached", error=str(error))
                    self.stopping.wait(DEBOUNCE)
        finally:
            self.stop()
            if self._cycle is not None:
                self._cycle.thread.join()
            ended.set()
            pulse.join()
            try:
                jobs.sign_off(self.store, self.me)
            except OperationalError as error:  # its last sign of life gets old by itself
                log.warning("the worker cannot sign off", error=str(error))
        log.info("worker stopped", worker=self.me)

    def stop(self) -> None:
        """Ask the loop and the cycle to end soon; may be called from a signal handler."""
        self.stopping.set()
        if self._cycle is not None:
            self._cycle.stopping.set()

    def _give_signs_of_life(self, ended: threading.Event) -> None:
        """In a thread of its own: looking after a large project may take longer than a lease lasts."""
        while not ended.wait(BEAT):
            cycle = self._cycle if self._cycle is not None and self._cycle.thread.is_alive() else None
            try:
                held = jobs.renew(self.store, self.me, None if cycle is None else cycle.job)
            except OperationalError as error:
                log.warning("no sign of life could be given", error=str(error))
                continue
            if cycle is not None and not held and cycle.thread.is_alive():
                log.warning("another worker has taken the job over", job=cycle.job)
                cycle.stopping.set()

    def _called(self) -> bool:
        """Whether something rang, or a cycle ended or waits to begin."""
        if self._cycle is not None and not self._cycle.thread.is_alive():
            self._rung.add(self._cycle.project)
            self._cycle = None
        self._rung |= self.bell.rung()
        return bool(self._rung) or (self._cycle is None and jobs.waiting(self.store, self.me))

    def look_after_all(self) -> None:
        """Look after the projects that rang, and those that no worker has looked after lately."""
        with self.store.begin() as session:
            synced = dict(session.execute(select(Project.id, Project.synced_at)).all())
        self._rung = (self._rung | self.bell.rung()) & synced.keys()
        for project_id in sorted(synced, key=lambda number: (number not in self._rung, number)):
            recent = time.time() - (synced[project_id] or 0.0) < self.settings.poll_seconds / 2
            if recent and project_id not in self._rung:
                continue
            with self.store.turn(project_id, wait=False) as mine:
                if mine:  # else it stays rung for: whoever has the turn may have asked before it rang
                    self._rung.discard(project_id)
                    self._look_after_or_alarm(project_id)

    def _look_after_or_alarm(self, project_id: int) -> None:
        """Look after one project; what goes wrong with it is its alarm and costs the others nothing."""
        project = self.store.project(project_id)
        if project is None or project.connection == "none":  # disconnected
            return
        sweeping = time.monotonic() - self._swept.get(project_id, float("-inf")) > SWEEP_EVERY
        try:
            alarms = self.look_after(project_id, sweeping)
            if sweeping:
                self._swept[project_id] = time.monotonic()
        except (LabelStudioError, httpx.HTTPError, SchemaError) as error:
            log.warning("project cannot be looked after", project=project_id, error=str(error))
            alarms = [str(error)]
        except OperationalError:
            raise
        except Exception as error:  # a fault of ours with one project must not stop the worker for all
            log.exception("project cannot be looked after", project=project_id)
            alarms = [f"{type(error).__name__}: {error}"]
        with self.store.begin() as session:
            session.get_one(Project, project_id).alarms = alarms

    def look_after(self, project_id: int, sweeping: bool) -> list[str]:
        """Reconcile one project, repair and refill its queue, ask for a training when one is due. In its turn only.

        Returns alarms for an admin. Raises what Label Studio's calls raise.
        """
        sync.reconcile(self.store, self.client, project_id)
        expert.look(self.store, self.client, project_id)
        repaired = queue.guard(self.store, self.client, project_id)
        repaired += connection.guard(self.store, self.client, self.settings, project_id)
        with self.store.begin() as session:
            project = session.get_one(Project, project_id)
        published, settings = project.published, self.settings.tuned(project.extra_params)
        if published is not None:
            self._serve(project_id, published)  # also what a kill left undone
            renewal.withdraw(self.store, self.client, settings, project_id)
            short = pace.short_of_tasks(self.store, self.client, project_id)
            if short:  # before they are told why
                ending.stop_if_enough(self.store, self.registry, settings, project_id, thorough=True)
            for person in short:
                self._refill(project_id, published, settings, person)
            repaired += pace.waiting_for_others(self.store, project_id)
            if sweeping:
                sweep.sweep(self.store, self.client, project_id, self.settings.task_lock_hours)
        reopen.close(self.store, self.client, project_id)
        reason = schedule.training_due(self.store, settings, project_id)
        stopped = ending.stop_if_enough(self.store, self.registry, settings, project_id, thorough=reason is not None)
        if reason is not None and not stopped:
            jobs.request(self.store, project_id, Cycle.kind, reason)
        if reason := schedule.catch_up_due(self.store, project_id):
            jobs.request(self.store, project_id, CatchUp.kind, reason)
        repaired += fatigue.alarms(self.store, project_id, settings.daily_limit)
        if settings.acquisition and published is not None:
            repaired += acquisition.alarms(self.registry.version(project_id, published))
        if project.version is not None:
            repaired += centres.alarms(self.registry.version(project_id, project.version))
        repaired += panel.fill(self.store, self.client, project_id)  # last: nobody waits for it
        return repaired + imported.alarms(self.store, project_id)

    def _serve(self, project_id: int, version: int) -> None:
        """Bring a version's order to Label Studio: predictions first, without which a reopened task has no place."""
        panel.hide(self.store, self.client, project_id, version)
        queue.push(self.store, self.client, project_id, version)
        reopen.reopen(self.store, self.client, project_id, version)

    def _refill(self, project_id: int, version: int, settings: Settings, person: int | None) -> None:
        size = pace.head_size(self.store, project_id, settings.batch_size, settings.head_hours)
        wanted = size - len(queue.open_head(self.store, project_id, person=person))
        if wanted <= 0:  # a refill for another annotator was one for this one as well
            return
        added = plan.extend_head(self.store, self.registry, settings, project_id, version, wanted, person)
        self._serve(project_id, version)
        log.info("refilled the queue", project=project_id, version=version, tasks=added)

    def _start_job(self) -> None:
        """Take a job if none of ours runs."""
        if self._cycle is not None and self._cycle.thread.is_alive():
            return
        job = jobs.claim(self.store, self.me)
        if job is not None:
            stopping = threading.Event()
            thread = threading.Thread(target=self._run_cycle, args=(job, stopping), name=f"cycle-{job.id}")
            self._cycle = _Running(job.id, job.project_id, thread, stopping)
            thread.start()

    def _run_cycle(self, job: Job, stopping: threading.Event) -> None:
        work = KINDS[job.kind](
            self.store,
            self.client,
            self.images,
            self.registry,
            self.settings,
            job.id,
            job.project_id,
            stopping,
        )
        try:
            work.run()
        except Stopped:
            jobs.release(self.store, job.id, self.me)
            return
        except Exception as error:  # whatever it is, the job must say so and the others must go on
            log.exception("job failed", project=job.project_id, job=job.id, kind=job.kind)
            jobs.finish(self.store, job.id, self.me, error=f"{type(error).__name__}: {error}")
            return
        jobs.finish(self.store, job.id, self.me)
