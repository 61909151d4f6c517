"""`serve`, `worker` and `cycle`: the processes, and one cycle now."""

import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import typer

from backend.cli.terminal import Json, ProjectOption, bar, chosen_project, fail, show


def serve(as_json: Json = False) -> None:
    """Serve Label Studio's calls with gunicorn, until it is stopped. --json writes the log as JSON lines."""
    from backend.auth import ListenRefused, check_listen
    from backend.settings import settings
    from tasks.store import Store

    chosen = settings()
    try:
        check_listen(chosen)
    except ListenRefused as error:
        raise fail(str(error)) from error
    Store.open(chosen.database, chosen.migrations_url)  # migrate once, before several web workers would
    if as_json:
        os.environ["SECOND_LOOK_LOG_FORMAT"] = "json"
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the cores are the worker's; web threads only look things up
    if chosen.web_workers > 1:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="second-look-metrics-")
    command = [
        *(sys.executable, "-m", "gunicorn", "backend.wsgi:app"),
        *("--bind", f"{chosen.host}:{chosen.port}"),
        *("--workers", str(chosen.web_workers), "--threads", str(chosen.web_threads)),
        *("--worker-class", "gthread", "--timeout", "120", "--graceful-timeout", "10"),
    ]
    os.execv(sys.executable, command)


def worker(as_json: Json = False) -> None:
    """Reconcile, keep the queue filled and train, until it is stopped. --json writes the log as JSON lines."""
    started = _worker("json" if as_json else None)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: started.stop())
    started.run()


def _worker(log_format: Literal["json"] | None = None) -> Any:
    # Threads that wait for each other sleep instead of spinning: the cores are shared with Label Studio and annotators.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from backend import logs
    from backend.acquisition import load
    from backend.learning.backbone import check_name
    from backend.settings import settings
    from backend.worker import Worker
    from tasks.store import Store

    chosen = settings()
    secrets = [chosen.password.get_secret_value(), chosen.label_studio_token.get_secret_value()]
    logs.configure(log_format or chosen.log_format, secrets=secrets)
    if not chosen.label_studio_token.get_secret_value():
        raise fail("set SECOND_LOOK_LABEL_STUDIO_TOKEN to a personal access token of Label Studio")
    try:
        check_name(chosen.backbone)
        if chosen.weights not in ("hub", "scratch") and not Path(chosen.weights).is_file():
            raise ValueError(f"weights: there is no file {chosen.weights}; name one, or hub, or scratch")
        if chosen.acquisition:
            load(chosen.acquisition)
    except ValueError as error:
        raise fail(str(error)) from error
    return Worker(chosen, Store.open(chosen.database, chosen.migrations_url))


def cycle(project: ProjectOption = None, as_json: Json = False) -> None:
    """Train, rank and publish now. A running worker does it; without one, this command does."""
    from backend.settings import settings
    from tasks.store import Store

    chosen = settings()
    store = Store.open(chosen.database)
    final = run_job(chosen, store, chosen_project(store, project), "cycle", "asked for on the command line")
    value = {"job": final.id, "state": final.state, "version": final.version, "error": final.error}
    show(value, as_json, f"version {final.version}: {final.state} {final.error or ''}")
    if final.state == "failed":
        raise typer.Exit(1)


def run_job(chosen: Any, store: Any, project_id: int, kind: str, reason: str) -> Any:
    """Ask for a job and wait until it is done or has failed; a running worker does it, or else this process."""
    from sqlalchemy.orm import Session

    from backend import jobs
    from tasks.tables import Job

    job_id = jobs.request(store, project_id, kind, reason)
    jobs.Bell(chosen).ring(project_id)

    def job() -> Job:
        with Session(store.engine) as session:
            return session.get_one(Job, job_id)

    with bar() as progress:
        task = progress.add_task("waiting for the worker", total=None)

        def ended() -> bool:
            now = job()
            progress.update(task, description=now.step or now.state, completed=now.done, total=now.total or None)
            return now.state in ("done", "failed")

        while not ended():
            if jobs.workers(store):
                time.sleep(0.5)
            else:  # none runs, or the last one has stopped meanwhile
                _worker().run(until=ended)
    return job()
