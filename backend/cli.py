"""The command line: `second-look`. Every command prints for a person, or one JSON object with --json."""

import json
import logging
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_show_locals=False)
console = Console()

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text")]
ProjectOption = Annotated[
    int | None, typer.Option("--project", help="Label Studio's number; needed if there are several")
]


@app.callback()
def configure() -> None:
    """Log to standard error without local variables, which may hold secrets."""
    from backend import logs

    logs.configure("console", level=logging.WARNING)


def show(value: Any, as_json: bool, text: Any) -> None:
    """Print the value as JSON, or the text that stands for it."""
    if as_json:
        typer.echo(json.dumps(value))
    else:
        console.print(text)


def fail(message: str) -> typer.Exit:
    """Say on standard error what is wrong; raise the result."""
    typer.echo(message, err=True)
    return typer.Exit(1)


@app.command()
def phantoms(
    folder: Annotated[Path, typer.Argument(help="New or empty folder to write")],
    images: Annotated[int, typer.Option(min=1)] = 600,
    seed: Annotated[int, typer.Option()] = 0,
    as_json: Json = False,
) -> None:
    """Write thyroid ultrasound phantoms as a data folder, with nodule masks and the truth in true_* columns."""
    from demo.phantoms import write_phantoms

    with bar() as progress:
        task = progress.add_task("drawing", total=images)
        ceiling = write_phantoms(
            folder, images, seed, lambda done, total: progress.update(task, completed=done, total=total)
        )
    value = {"folder": str(folder), "images": images, "seed": seed, "auc_ceiling": round(ceiling.realised, 4)}
    show(value, as_json, f"{images} images in {folder}; the true TI-RADS gives an AUC of {ceiling.realised:.3f}")


@app.command()
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
    Store.open(chosen.database)  # migrate once, before several web workers would
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


@app.command()
def worker(as_json: Json = False) -> None:
    """Reconcile, keep the queue filled and train, until it is stopped. --json writes the log as JSON lines."""
    started = _worker("json" if as_json else None)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: started.stopping.set())
    started.run()


def _worker(log_format: Literal["json"] | None = None) -> Any:
    # Threads that wait for each other sleep instead of spinning: the cores are shared with Label Studio and annotators.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from backend import logs
    from backend.settings import settings
    from backend.worker import Worker
    from tasks.store import Store

    chosen = settings()
    secrets = [chosen.password.get_secret_value(), chosen.label_studio_token.get_secret_value()]
    logs.configure(log_format or chosen.log_format, secrets=secrets)
    if not chosen.label_studio_token.get_secret_value():
        raise fail("set SECOND_LOOK_LABEL_STUDIO_TOKEN to a personal access token of Label Studio")
    return Worker(chosen, Store.open(chosen.database))


@app.command()
def status(as_json: Json = False) -> None:
    """What runs, the model and its metrics, the queue, and how many labels are left until the next training."""
    from backend.settings import settings
    from backend.status import overview
    from tasks.store import Store

    chosen = settings()
    value = overview(Store.open(chosen.database), chosen)
    if as_json:
        show(value, True, "")
        return
    console.print(f"Label Studio {value['label_studio']}; workers: {', '.join(value['workers']) or 'none running'}")
    for project in value["projects"]:
        _print_project(project)


def _print_project(project: dict[str, Any]) -> None:
    console.print(f"\n[bold]Project {project['project']}[/bold] {project['title']}")
    for alarm in project["alarms"]:
        console.print(f"  [red]alarm[/red] {alarm}")
    console.print(f"  tasks {project['tasks']}, open {project['tasks_open']}, annotations {project['annotations']}")
    for failed in project["images_failed"]["tasks"]:
        console.print(f"  [yellow]task {failed['task']}[/yellow] {failed['reason']}")
    for task in project["tasks_with_problems"]:
        console.print(f"  [yellow]task {task['task']}[/yellow] {'; '.join(task['problems'])}")
    queue, training, job = project["queue"], project["training"], project["training"]["job"]
    console.print(f"  queue {queue['published'] or 'not published yet'}: {queue['open']} of {queue['size']} still open")
    console.print(f"  labels until the next training: {training['labels_until_next']} of {training['needed']}")
    if job is not None:
        progress = f" {job['done']}/{job['total']}" if job["total"] else ""
        console.print(
            f"  job {job['id']} {job['state']}: {job['step']}{progress} {job['error'] or ''} ({job['reason']})"
        )
    if project["model"] is not None:
        table = Table(
            "control", "n", "adjudicated", "accuracy", "macro F1", "AUC", "ECE", title="hold-out, recorded labels"
        )
        for head, figures in project["model"]["holdout"].items():
            numbers = ["-" if figures[name] is None else f"{figures[name]:.3f}" for name in FIGURES]
            table.add_row(head, str(figures["n"]), str(figures["adjudicated"]), *numbers)
        console.print(
            f"  model v{project['model']['version']}, learnt from {project['model']['labels']} labelled tasks"
        )
        console.print(table)


FIGURES = ("accuracy", "macro_f1", "auc", "ece")


@app.command()
def cycle(project: ProjectOption = None, as_json: Json = False) -> None:
    """Train, rank and publish now. A running worker does it; without one, this command does."""
    from sqlalchemy.orm import Session

    from backend import jobs
    from backend.settings import settings
    from tasks.store import Store
    from tasks.tables import Job

    chosen = settings()
    store = Store.open(chosen.database)
    number = _project(store, project)
    job_id = jobs.request(store, number, "cycle", "asked for on the command line")
    jobs.Bell(chosen).ring(number)

    def job() -> Job:
        with Session(store.engine) as session:
            return session.get_one(Job, job_id)

    with bar() as progress:
        task = progress.add_task("waiting for the worker", total=None)

        def ended() -> bool:
            now = job()
            progress.update(task, description=now.step or now.state, completed=now.done, total=now.total or None)
            return now.state in ("done", "failed")

        if jobs.workers(store):
            while not ended():
                time.sleep(0.5)
        else:
            _worker().run(until=ended)
    final = job()
    value = {"job": job_id, "state": final.state, "version": final.version, "error": final.error}
    show(value, as_json, f"version {final.version}: {final.state} {final.error or ''}")
    if final.state == "failed":
        raise typer.Exit(1)


@app.command()
def rank(top: Annotated[int, typer.Option(min=1)] = 100, project: ProjectOption = None, as_json: Json = False) -> None:
    """The queue: what is published and still open, then what would follow, with scores and reasons."""
    from backend.plan import preview
    from backend.registry import Registry
    from backend.settings import settings
    from tasks.store import Store

    chosen = settings()
    store = Store.open(chosen.database)
    rows = preview(store, Registry(chosen.state_dir), chosen, _project(store, project), top)
    table = Table("place", "task", "kind", "score", "U", "D", "published", "why")
    for row in rows:
        numbers = [
            "-" if row[name] is None else f"{row[name]:.3f}" for name in ("score", "uncertainty", "disagreement")
        ]
        table.add_row(
            str(row["place"]), str(row["task"]), row["kind"], *numbers, "yes" if row["published"] else "", row["why"]
        )
    show({"tasks": rows}, as_json, table)


def _project(store: Any, number: int | None) -> int:
    """The project meant; the only one where none was named."""
    from sqlalchemy import select

    from tasks.tables import Project

    with store.begin() as session:
        known = session.scalars(select(Project.id).order_by(Project.id)).all()
    if number is None and len(known) == 1:
        return int(known[0])
    if number is None or number not in known:
        listed = ", ".join(map(str, known)) or "none is connected yet"
        raise fail(f"name a project with --project: {listed}")
    return number


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where the demo keeps everything")] = Path("second-look-demo"),
    data: Annotated[Path | None, typer.Option(help="A data folder; without one, phantoms are drawn")] = None,
    label_config: Annotated[Path | None, typer.Option(help="Its label config; without one, label_config.xml")] = None,
    sample: Annotated[int | None, typer.Option(min=20, help="Use only so many images, by whole patients")] = None,
    oracle: Annotated[int | None, typer.Option(min=1, help="Answer so many tasks of the running demo")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Run the whole loop unattended in a fresh folder, and stop")
    ] = False,
    reset: Annotated[bool, typer.Option("--reset", help="Remove the demo's folder")] = False,
    as_json: Json = False,
) -> None:
    """Start Label Studio, the backend and the worker on a project whose queue the model orders."""
    from demo import answer as answering
    from demo import check as checking
    from demo import run

    try:
        if reset:
            run.reset(folder)
            show({"removed": str(folder)}, as_json, f"removed {folder}")
        elif oracle is not None:
            value = answering.answer(folder, oracle, console)
            show(value, as_json, answering.before_and_after(value))
        elif check:
            with tempfile.TemporaryDirectory(prefix="second-look-") as fresh:
                value = checking.check(Path(fresh), data, label_config, sample, Console(stderr=True))
            show(value, as_json, json.dumps(value, indent=1))
            if not value["closed"]:
                raise typer.Exit(1)
        else:
            run.demo(folder, data, label_config, sample, Console(stderr=True) if as_json else console, as_json)
    except run.DemoError as error:
        raise fail(str(error)) from error


def bar() -> Progress:
    """A progress bar on standard error, so that --json keeps standard output to itself."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )


if __name__ == "__main__":
    app()
