"""Background jobs: a table that is the truth, leases that a killed worker lets run out, and huey as the bell.

The bell only shortens the wait: whoever is woken asks the table, and the worker asks it unprompted too.
"""

import hashlib
import os
import secrets
import socket
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
from huey import Huey, RedisHuey, SqliteHuey
from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from backend.settings import Settings
from tasks.store import Store, lock_project
from tasks.tables import Heartbeat, Job, Version

log = structlog.get_logger()

LEASE = 60.0  # seconds without a sign of life until another worker may take a job over
ATTEMPTS = 3
REDIS_PATIENCE = 2.0  # seconds; Label Studio cuts a webhook after one, and a web thread must not hang on its bell


class Bell:
    """Rings the worker through huey, on SQLite or Redis. A bell that is out of order costs a wait, nothing else."""

    def __init__(self, settings: Settings) -> None:
        self.huey: Huey
        self._out_of_order: type[Exception]
        if settings.redis_url:
            from redis import ConnectionPool  # an extra of the installation
            from redis.exceptions import RedisError

            pool = ConnectionPool.from_url(  # type: ignore[no-untyped-call]
                settings.redis_url, socket_timeout=REDIS_PATIENCE, socket_connect_timeout=REDIS_PATIENCE
            )
            self.huey = RedisHuey("second-look", connection_pool=pool, blocking=False, results=False)
            self._out_of_order = RedisError
        else:
            settings.state_dir.mkdir(parents=True, exist_ok=True)
            self.huey = SqliteHuey("second-look", filename=str(settings.state_dir / "bell.db"), results=False)
            self._out_of_order = sqlite3.Error
        self._ring: Callable[[int], object] = self.huey.task(name="ring")(_ring)  # type: ignore[no-untyped-call]

    def ring(self, project_id: int) -> None:
        """Wake a worker for the project; costs a millisecond or two."""
        try:
            self._ring(project_id)
        except self._out_of_order as error:
            log.warning("the worker cannot be rung and finds out at its next poll", error=str(error))

    def rung(self) -> set[int]:
        """The projects rung for since the last call; many webhooks become one wake-up."""
        projects = set()
        try:
            while (message := self.huey.dequeue()) is not None:
                projects.add(int(message.args[0]))
        except self._out_of_order as error:
            log.warning("the bell cannot be heard", error=str(error))
        return projects


def _ring(project_id: int) -> int:
    return project_id


def owner() -> str:
    """A name for this worker in leases: machine, process number, and a token for this start of it."""
    return f"{_machine()}:{os.getpid()}:{secrets.token_hex(4)}"


def _machine() -> str:
    """Where process numbers mean the same: host names repeat among containers, and numbers in each of them."""
    try:
        kernel = Path("/proc/sys/kernel/random/boot_id").read_text() + str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return socket.gethostname()
    return f"{socket.gethostname()}-{hashlib.sha256(kernel.encode()).hexdigest()[:6]}"


def request(store: Store, project_id: int, kind: str, reason: str) -> int:
    """Queue a job and return its number; while one of that kind is queued already, that one."""
    with store.begin() as session:
        lock_project(session, project_id)
        waiting = session.scalars(
            select(Job.id).where(Job.project_id == project_id, Job.kind == kind, Job.state == "queued")
        ).first()
        if waiting is not None:
            return waiting
        job = Job(
            project_id=project_id,
            kind=kind,
            state="queued",
            reason=reason,
            created_at=time.time(),
            step="",
            done=0,
            total=0,
            attempts=0,
        )
        session.add(job)
        session.flush()
        return job.id


def claim(store: Store, me: str) -> Job | None:
    """Take the oldest job that nobody works on: queued, or running under a lease that ran out or a dead process.

    A project whose other job still runs is left alone. A job that was begun ATTEMPTS times fails.
    """
    open_jobs = select(Job).where(Job.state.in_(["queued", "running"])).order_by(Job.state.desc(), Job.id)
    with store.begin() as session:
        candidates = session.execute(open_jobs.with_only_columns(Job.id, Job.project_id)).all()
    for number, project_id in candidates:  # a transaction for each: two workers must not wait for each other's locks
        with store.begin() as session:
            lock_project(session, project_id)
            now = _clock(session)
            jobs = session.scalars(open_jobs.where(Job.project_id == project_id)).all()
            job = next((job for job in jobs if job.id == number), None)
            if job is None or any(other.state == "running" and not _abandoned(other, me, now) for other in jobs):
                continue
            if job.attempts >= ATTEMPTS:
                job.state, job.finished_at = "failed", time.time()
                job.error = job.error or f"given up after {ATTEMPTS} attempts: its worker died each time"
                continue
            job.state, job.owner, job.lease_until = "running", me, now + LEASE
            job.attempts += 1
            job.started_at = job.started_at or time.time()
            return job
    return None


def waiting(store: Store, me: str) -> bool:
    """Whether a job waits for a worker: queued, or left behind by one that died."""
    with store.begin() as session:
        now = _clock(session)
        open_jobs = session.scalars(select(Job).where(Job.state.in_(["queued", "running"])))
        return any(job.state == "queued" or _abandoned(job, me, now) for job in open_jobs)


def _clock(session: Session) -> float:
    """The time by which leases are judged: the database's, where machines with clocks of their own share it."""
    if session.get_bind().dialect.name == "sqlite":
        return time.time()
    return float(session.scalar(select(func.extract("epoch", func.clock_timestamp()))) or 0.0)


def _abandoned(job: Job, me: str, now: float) -> bool:
    if (job.lease_until or 0.0) < now:
        return True
    owner = job.owner or "::"
    return owner != me and (_gone(owner) or owner.split(":")[:2] == me.split(":")[:2])


def _gone(owner: str) -> bool:
    """Whether that worker ran on this machine and its process is no more."""
    machine, pid, _ = owner.split(":")
    return machine == _machine() and Path("/proc/self").exists() and not Path(f"/proc/{pid}").exists()


def renew(store: Store, me: str, job_id: int | None = None) -> bool:
    """Say that this worker lives, and works on that job. Returns False when another has the job.

    A worker that was silent for LEASE seconds, for example suspended, may have lost it to another.
    """
    with store.begin() as session:
        now = _clock(session)
        session.merge(Heartbeat(owner=me, at=now))
        if job_id is None:
            return True
        session.execute(update(Job).where(Job.id == job_id, Job.owner == me).values(lease_until=now + LEASE))
        return session.scalar(select(Job.owner).where(Job.id == job_id)) in (me, None)  # None: just ended


def sign_off(store: Store, me: str) -> None:
    """This worker stops: nobody is to wait for it."""
    with store.begin() as session:
        session.execute(delete(Heartbeat).where(Heartbeat.owner == me))


def workers(store: Store) -> list[str]:
    """The workers that gave a sign of life lately, but for those of this machine that are known to be gone."""
    with store.begin() as session:
        seen = session.scalars(select(Heartbeat.owner).where(Heartbeat.at > _clock(session) - LEASE)).all()
    return [owner for owner in seen if not _gone(owner)]


def report(store: Store, job_id: int, **fields: Any) -> None:
    """Write the job's step, progress or version."""
    with store.begin() as session:
        session.execute(update(Job).where(Job.id == job_id).values(**fields))


def finish(store: Store, job_id: int, me: str, error: str | None = None) -> None:
    """End a job. After an error it is queued again, up to ATTEMPTS times, and goes on where it stopped.

    A job that another worker has taken over meanwhile is that one's to end.
    """
    with store.begin() as session:
        job = _mine(session, job_id, me)
        if job is None:
            return
        job.error, job.owner, job.lease_until = error, None, None
        if error is not None and job.attempts < ATTEMPTS:
            job.state = "queued"
            return
        job.state = "done" if error is None else "failed"
        job.finished_at = time.time()


def release(store: Store, job_id: int, me: str) -> None:
    """Give a job back unfinished, because its worker was asked to stop: that is no failed attempt."""
    with store.begin() as session:
        job = _mine(session, job_id, me)
        if job is None:
            return
        job.state, job.owner, job.lease_until = "queued", None, None
        job.attempts -= 1


def _mine(session: Session, job_id: int, me: str) -> Job | None:
    """The job, if this worker still holds it."""
    lock_project(session, session.scalars(select(Job.project_id).where(Job.id == job_id)).one())
    return session.scalars(select(Job).where(Job.id == job_id, Job.owner == me)).first()


def next_version(store: Store, job_id: int, above: int = 0) -> int:
    """The number of the version that the job makes: given once, so that a resumed job goes on with it.

    above: the highest number known elsewhere.
    """
    with store.begin() as session:
        job = session.get_one(Job, job_id)
        if job.version is None:
            lock_project(session, job.project_id)
            made = session.scalar(select(func.max(Version.number)).where(Version.project_id == job.project_id))
            begun = session.scalar(select(func.max(Job.version)).where(Job.project_id == job.project_id))
            job.version = max(made or 0, begun or 0, above) + 1
        return job.version
