"""A worker that dies at chosen steps, for the tests: run as a program, it forks a worker for each line it is given.

A line is a JSON object: `environment` with the worker's settings, and `known`, the steps to survive. The fork works
until there is nothing left to do, or kills itself (SIGKILL) at the first step that is not known. The answer is that
step, or null. A step is a file that got its name, a transaction that was committed, a change that Label Studio was sent
and one that it answered.
"""

import json
import os
import re
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from label_studio_sdk import label_interface  # noqa: F401  what is imported here, no life has to import
from sqlalchemy import event, select
from sqlalchemy.orm import ORMExecuteState, Session

from backend import jobs, logs
from backend.settings import Settings
from backend.worker import Worker
from tasks import queue
from tasks.client import Client
from tasks.store import Store
from tasks.tables import Job

ROOT = Path(__file__).parents[2]
MINE = tuple(str(ROOT / folder) for folder in ("backend", "tasks"))


class Life:
    """What this fork knows: the steps to survive, where to tell of its death, and the job it works on."""

    known: frozenset[str] = frozenset()
    grave = -1
    job = 0
    lock = threading.Lock()

    @classmethod
    def reached(cls, step: str) -> None:
        step = f"job {cls.job}: {step}"
        if cls.grave >= 0 and step not in cls.known and cls.known != {"*"}:
            with cls.lock:  # of two threads one dies first
                os.write(cls.grave, step.encode())
                os.kill(os.getpid(), signal.SIGKILL)


def named(path: Path) -> str:
    for folder in ("pixels", "images"):
        if folder in path.parts:
            return folder
    return "/".join((path.parts[-3], path.name))


def whose() -> str:
    """The function of ours that asked for the commit."""
    frame: Any = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename.startswith(MINE) and not frame.f_code.co_filename.endswith("store.py"):
            return str(frame.f_code.co_qualname)
        frame = frame.f_back
    return "?"


replace, call, claim = Path.replace, Client._call, jobs.claim


def replace_and_die(path: Path, target: Path) -> Path:
    done = replace(path, target)
    Life.reached(f"file {named(Path(target))}")
    return done


def call_and_die(client: Client, method: str, path: str, **arguments: Any) -> Any:
    if method == "GET":
        return call(client, method, path, **arguments)
    name = f"{method} {re.sub('[0-9]+', '*', path)}"

    def trace(happened: str, _info: Any) -> None:
        if happened == "http11.receive_response_headers.started":
            Life.reached(f"sent {name}")

    answer = call(client, method, path, **arguments, extensions={"trace": trace})
    Life.reached(f"answered {name}")
    return answer


def claim_and_remember(store: Store, me: str) -> Job | None:
    job = claim(store, me)
    Life.job = Life.job if job is None else job.id
    return job


def wrote(session: Session, *_: Any) -> None:
    session.info["wrote"] = True


def executed(state: ORMExecuteState) -> None:
    if state.is_insert or state.is_update or state.is_delete:
        state.session.info["wrote"] = True


def committed(session: Session) -> None:
    if session.info.pop("wrote", False):
        Life.reached(f"commit {whose()}")


def live(environment: dict[str, str]) -> None:
    os.environ.update(environment)
    settings = Settings()
    store = Store.open(settings.database)
    worker = Worker(settings, store)
    looks = 0

    def idle() -> bool:
        nonlocal looks
        looks += 1
        with store.begin() as session:
            busy = session.scalars(select(Job.id).where(Job.state.in_(["queued", "running"]))).first() is not None
        return looks > 1 and not busy

    worker.run(until=idle)


def main() -> None:
    logs.configure("console")  # to standard error
    Path.replace, Client._call, jobs.claim = replace_and_die, call_and_die, claim_and_remember
    jobs.ATTEMPTS = 10**6  # dying so often is no fault here
    queue.UNDER_WAY = 4.0  # Label Studio imports a dozen predictions in a fraction of a second
    event.listen(Session, "after_flush", wrote)
    event.listen(Session, "do_orm_execute", executed)
    event.listen(Session, "after_commit", committed)
    for line in sys.stdin:
        order = json.loads(line)
        told, grave = os.pipe()
        child = os.fork()
        if not child:
            os.close(told)
            Life.known, Life.grave = frozenset(order["known"]), grave
            live(order["environment"])
            os._exit(0)
        os.close(grave)
        with open(told) as reader:  # noqa: PTH123  a descriptor has no path
            died_at = reader.read()
        _, status = os.waitpid(child, 0)
        expected = signal.SIGKILL if died_at else 0
        if os.waitstatus_to_exitcode(status) != -expected:
            sys.exit(f"the worker ended with {status} at {died_at or 'no step'}")
        print(json.dumps(died_at or None), flush=True)


if __name__ == "__main__":
    main()
