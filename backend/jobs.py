"""Background jobs: a table that is the truth, leases that a killed worker lets run out, and huey as the bell.

The bell only shortens the wait: whoever is woken asks the table, and the worker asks it unprompted too.
"""

import os
import secrets
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huey import Huey, RedisHuey, SqliteHuey
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from backend.settings import Settings
from tasks.store import Store
from tasks.tables import Heartbeat, Job, Project, Version

LEASE = 120.0  # seconds without a sign of life until another worker may take a job over
ATTEMPTS = 3


class Bell:
    """Rings the worker through huey, on SQLite or Redis."""

    def __init__(self, settings: Settings) -> None:
        self.huey: Huey
        if settings.redis_url:
            self.huey = RedisHuey("second-look", url=settings.redis_url, results=False)
        else:
            settings.state_dir.mkdir(parents=True, exist_ok=True)
            self.huey = SqliteHuey("second-look", filename=str(settings.state_dir / "bell.db"), results=False)
        self._ring: Callable[[int], object] = self.huey.task(name="ring")(_ring)  # type: ignore[no-untyped-call]

    def ring(self, project_id: int) -> None:
        """Wake a worker for the project; costs a millisecond or two."""
        self._ring(project_id)

    def rung(self) -> set[int]:
        """The projects rung for since the last call; many webhooks become one wake-up."""
        projects = set()
        while (message := self.huey.dequeue()) is not None:
            projects.add(int(message.args[0]))
        return projects


def _ring(project_id: int) -> int:
    return project_id


def owner() -> str:
    """A name for this worker in leases. A restarted container has the same host and number, hence the token."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


def request(store: Store, project_id: int, kind: str, reason: str) -> int:
    """Queue a job and return its number; while one of that kind is queued already, that one."""
    with store.begin() as session:
        _lock(session, project_id)
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
    with store.begin() as session:
        candidates = session.scalars(
            select(Job).where(Job.state.in_(["queued", "running"])).order_by(Job.state.desc(), Job.id)
        ).all()
        taken = {job.project_id for job in candidates if job.state == "running" and not _abandoned(job, me)}
        for job in candidates:
            if job.project_id in taken:
                continue
            _lock(session, job.project_id)
            session.refresh(job)
            if job.state not in ("queued", "running") or (job.state == "running" and not _abandoned(job, me)):
                continue
            if job.attempts >= ATTEMPTS:
                job.state, job.finished_at = "failed", time.time()
                job.error = job.error or f"given up after {ATTEMPTS} attempts: its worker died each time"
                continue
            job.state, job.owner, job.lease_until = "running", me, time.time() + LEASE
            job.attempts += 1
            job.started_at = job.started_at or time.time()
            return job
    return None


def _lock(session: Session, project_id: int) -> None:
    """Make other transactions on the project's jobs wait for this one."""
    session.execute(update(Project).where(Project.id == project_id).values(id=project_id))


def _abandoned(job: Job, me: str) -> bool:
    if (job.lease_until or 0.0) < time.time():
        return True
    owner = job.owner or "::"
    return owner != me and (_gone(owner) or owner.split(":")[:2] == me.split(":")[:2])


def _gone(owner: str) -> bool:
    """Whether that worker ran on this machine and its process is no more."""
    host, pid, _ = owner.split(":")
    return host == socket.gethostname() and Path("/proc/self").exists() and not Path(f"/proc/{pid}").exists()


def renew(store: Store, me: str) -> None:
    """Say that this worker lives: its heartbeat, and the leases of its jobs."""
    now = time.time()
    with store.begin() as session:
        session.merge(Heartbeat(owner=me, at=now))
        session.execute(update(Job).where(Job.owner == me, Job.state == "running").values(lease_until=now + LEASE))


def workers(store: Store) -> list[str]:
    """The workers that gave a sign of life lately, but for those of this machine that are known to be gone."""
    with store.begin() as session:
        seen = session.scalars(select(Heartbeat.owner).where(Heartbeat.at > time.time() - LEASE)).all()
    return [owner for owner in seen if not _gone(owner)]


def report(store: Store, job_id: int, **fields: Any) -> None:
    """Write the job's step, progress or version."""
    with store.begin() as session:
        session.execute(update(Job).where(Job.id == job_id).values(**fields))


def finish(store: Store, job_id: int, error: str | None = None) -> None:
    """End a job. After an error it is queued again, up to ATTEMPTS times, and goes on where it stopped."""
    with store.begin() as session:
        job = session.get_one(Job, job_id)
        job.error, job.owner, job.lease_until = error, None, None
        if error is not None and job.attempts < ATTEMPTS:
            job.state = "queued"
            return
        job.state = "done" if error is None else "failed"
        job.finished_at = time.time()


def release(store: Store, job_id: int) -> None:
    """Give a job back unfinished, because its worker was asked to stop: that is no failed attempt."""
    with store.begin() as session:
        job = session.get_one(Job, job_id)
        job.state, job.owner, job.lease_until = "queued", None, None
        job.attempts -= 1


def next_version(store: Store, job_id: int) -> int:
    """The number of the version that the job makes: given once, so that a resumed job goes on with it."""
    with store.begin() as session:
        job = session.get_one(Job, job_id)
        if job.version is None:
            _lock(session, job.project_id)
            made = session.scalar(select(func.max(Version.number)).where(Version.project_id == job.project_id))
            begun = session.scalar(select(func.max(Job.version)).where(Job.project_id == job.project_id))
            job.version = max(made or 0, begun or 0) + 1
        return job.version
