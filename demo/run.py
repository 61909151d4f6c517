"""The demo: Label Studio, the backend and the worker on one project, prepared and kept in one folder.

A second start finds what the first one made and goes on with it.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from backend import status
from backend.connection import set_up
from backend.label_studio import open_client
from backend.settings import Settings
from demo import labelstudio
from demo.phantoms import write_phantoms
from demo.source import source
from demo.stack import Service, Stack, StackError
from tasks import datafolder
from tasks.client import LabelStudioError
from tasks.datafolder import DataFolder, DataFolderError
from tasks.schema import Schema, SchemaError, parse_label_config
from tasks.store import Store

IMAGES = 600
RETRAIN_AFTER = 10  # annotations
LOOKS = 16000  # images times epochs for each backbone: three minutes of training, however large the folder
SEED = 1  # its true TI-RADS gives an AUC of 0.950
CONFIG = Path(__file__).parents[1] / "label_config.xml"

# Small enough for two CPU cores: the first queue is there within five minutes, without pretrained weights.
LEARNING = {
    "SECOND_LOOK_BACKBONE": "test_resnet",  # AUC on the hold-out 0.881; resnet10t 0.888, for five times the training
    "SECOND_LOOK_WEIGHTS": "scratch",
    "SECOND_LOOK_IMAGE_SIZE": "80",  # 0.859 at 64 pixels
    "SECOND_LOOK_SEED": "2",  # its hold-out is as hard as the whole: the true TI-RADS gives an AUC of 0.955 there
    "SECOND_LOOK_BATCH_SIZE": "10",
    "SECOND_LOOK_HEAD_HOURS": "0",
    "SECOND_LOOK_POLL_SECONDS": "15",
}
# Of 243 images of nuclei a quarter, of one microscope, on record: Dice 0.89 on its hold-out with 60 steps and 3 folds.
MASKS = {"SECOND_LOOK_UNET_STEPS": "80", "SECOND_LOOK_CROP_SIZE": "128"}


class DemoError(RuntimeError):
    """The demo cannot go on; the message says why and what to do."""


@dataclass(frozen=True)
class Running:
    """A demo whose processes run."""

    stack: Stack
    url: str
    credentials: labelstudio.Credentials
    admin: httpx.Client
    project: int
    label_config: str
    schema: Schema
    folder: DataFolder
    store: Store
    settings: Settings


def demo(
    folder: Path, data: Path | None, label_config: Path | None, sample: int | None, console: Console, as_json: bool
) -> None:
    """Start everything, wait for the first queue, say where it is, and stay until Ctrl-C."""
    with started(folder, data, label_config, sample, console) as running:
        seconds = first_queue(running, console)
        about = {
            "url": f"{running.url}/projects/{running.project}/data",
            "email": running.credentials.admin.email,
            "password": running.credentials.admin.password,
            "project": running.project,
            "seconds": round(seconds, 1),
        }
        if as_json:
            print(json.dumps(about), flush=True)
        console.print(
            f"\n[bold]The queue is ready.[/bold] Open {about['url']}\n"
            f"  log in as {about['email']} with {about['password']}\n"
            f'  and press "Label All Tasks" (not "Label Tasks As Displayed": that is not the queue)\n\n'
            f"In another terminal:\n"
            f"  .venv/bin/second-look demo --folder {folder} --oracle 100\n"
            f"      answers 100 tasks and shows before and after\n"
            f"  cd {folder}, then second-look status, rank or cycle\n\n"
            f"Ctrl-C stops everything; the next start goes on from here."
        )
        running.stack.wait()


def reset(folder: Path) -> None:
    """Remove a demo's folder. Raises DemoError while it runs, or where the folder is none of a demo."""
    if not folder.exists():
        return
    if not (folder / "stack.lock").exists():
        raise DemoError(f"{folder} is not a demo's folder: it is left alone")
    try:
        with Stack(folder):
            pass
    except StackError as error:
        raise DemoError(f"{error}. Stop it first.") from error
    shutil.rmtree(folder)


@contextmanager
def started(
    folder: Path,
    data: Path | None,
    label_config: Path | None,
    sample: int | None,
    console: Console,
    retrain_after: int = RETRAIN_AFTER,
    annotated: bool = False,
) -> Iterator[Running]:
    """The stack with everything but the first model; stopped at the end. Raises DemoError.

    annotated: recorded labels are imported as annotations by the admin.
    """
    if data is not None and label_config is None:
        raise DemoError("a data folder needs its label config: --label-config, or CONFIG= with make")
    folder = folder.resolve()
    try:
        config = (label_config or CONFIG).read_text()
        schema = parse_label_config(config)
        with Stack(folder) as stack, bars(console) as progress:
            source = (data or folder / "data" / "phantoms").resolve()
            with ThreadPoolExecutor(1) as beside:  # drawing takes one core while Label Studio migrates on the other
                drawn = beside.submit(_draw, source, progress) if data is None else None
                url, credentials = _start_label_studio(folder, stack, source, progress)
                if drawn is not None:
                    drawn.result()
            read = datafolder.read(source, schema, labelstudio.config_fields(config))
            if sample is not None:
                read = read.sample(sample, seed=0)
            for problem in read.problems:
                console.print(f"[yellow]{problem}[/yellow]")
            running = _prepare(
                stack,
                url,
                credentials,
                read,
                schema,
                (label_config or CONFIG).resolve(),
                retrain_after,
                annotated,
                progress,
            )
            progress.stop()
            yield running
    except (StackError, DataFolderError, LabelStudioError, SchemaError, OSError) as error:
        raise DemoError(str(error)) from error


def _draw(folder: Path, progress: Progress) -> None:
    if not (folder / "labels.csv").exists():
        task = progress.add_task("drawing phantoms", total=IMAGES)
        ceiling = write_phantoms(folder, IMAGES, SEED, lambda done, total: progress.update(task, completed=done))
        progress.console.print(
            f"the true TI-RADS of these phantoms gives an AUC of {ceiling.realised:.3f}: no reader can do better"
        )


def _start_label_studio(
    folder: Path, stack: Stack, data: Path, progress: Progress
) -> tuple[str, labelstudio.Credentials]:
    credentials = labelstudio.Credentials.in_folder(folder)
    port = stack.port("label-studio", 8080)
    waiting = progress.add_task("starting Label Studio (a minute the first time)", total=None)
    stack.start(labelstudio.service(folder / "label-studio", port, data.parent, credentials))
    progress.update(waiting, total=1, completed=1)
    return f"http://127.0.0.1:{port}", credentials


def _prepare(
    stack: Stack,
    url: str,
    credentials: labelstudio.Credentials,
    read: DataFolder,
    schema: Schema,
    config_path: Path,
    retrain_after: int,
    annotated: bool,
    progress: Progress,
) -> Running:
    config, folder = config_path.read_text(), stack.folder
    admin = labelstudio.session(url, credentials.admin)
    token = labelstudio.personal_access_token(admin, credentials)
    # Each label config has a project of its own: Label Studio refuses one that annotations contradict.
    about = [read.folder.name] if config_path == CONFIG.resolve() else [read.folder.name, config_path.stem]
    project = labelstudio.create_project(admin, f"Second Look: {', '.join(about)}", config)["id"]
    labelstudio.register_local_storage(admin, project, read.folder)
    user = labelstudio.call(admin, "GET", "/api/current-user/whoami")["id"]
    recorded, said = (read, "") if annotated else source(read)
    if said and recorded.rows:
        progress.console.print(said)
    tasks = progress.add_task("importing tasks", total=len(read.rows))
    labelstudio.import_tasks(
        admin,
        project,
        read.task_data(recorded=not annotated),
        config,
        lambda done: progress.update(tasks, completed=done),
        recorded.annotations(user),
    )

    backend_port = stack.port("backend", 9090)
    epochs = min(16, max(4, LOOKS // len(read.rows)))
    environment = LEARNING | (MASKS if schema.masks else {})
    environment |= {"SECOND_LOOK_EPOCHS": str(epochs), "SECOND_LOOK_RETRAIN_AFTER": str(retrain_after)}
    # What the caller's environment sets wins over the demo's choices, but not over its addresses and secrets.
    environment |= {name: os.environ[name] for name in environment if name in os.environ}
    environment |= {
        "SECOND_LOOK_LABEL_STUDIO_URL": url,
        "SECOND_LOOK_LABEL_STUDIO_TOKEN": token,
        "SECOND_LOOK_STATE_DIR": str(folder / "state"),
        "SECOND_LOOK_PORT": str(backend_port),
        "SECOND_LOOK_PASSWORD": credentials.backend_password,
        "SECOND_LOOK_TASK_LOCK_HOURS": str(labelstudio.TASK_LOCK_TTL_S / 3600),
    }
    with _environment(environment):
        settings = Settings()
    kept = folder / ".env"  # so that status, rank and cycle work from within the demo's folder
    kept.touch(mode=0o600)
    kept.write_text("".join(f"{name}={value}\n" for name, value in environment.items()))
    program = str(Path(sys.executable).parent / "second-look")
    stack.start(Service("backend", [program, "serve"], environment, lambda: _answers(f"{settings.url}/health")))
    store = Store.open(settings.database)
    client = open_client(settings)
    with store.turn(project):
        set_up(store, client, settings, project)
    client.close()
    stack.start(Service("worker", [program, "worker"], environment, None))
    stack.state["demo"] = {"url": url, "project": project, "data": str(read.folder), "label_config": str(config_path)}
    stack.save()
    store = Store.open(settings.database)
    return Running(stack, url, credentials, admin, project, config, schema, read, store, settings)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2.0).status_code == 200
    except httpx.TransportError:
        return False


def first_queue(running: Running, console: Console) -> float:
    """Wait, showing the cycle's steps, until an order is published; returns the seconds. Raises DemoError."""
    began = time.monotonic()
    with bars(console) as progress:
        shown: dict[str, TaskID] = {}
        while True:
            now = status.of_project(running.store, running.settings, running.project)
            if now["queue"]["published"] is not None:
                return time.monotonic() - began
            job = now["training"]["job"] or {"state": "", "step": ""}
            if job["state"] == "failed":
                raise DemoError(
                    f"the first training failed: {job['error']}. See {running.stack.folder}/logs/worker.log"
                )
            if job["step"]:
                _show_step(progress, shown, job)
            running.stack.check()
            time.sleep(0.5)


def _show_step(progress: Progress, shown: dict[str, TaskID], job: Mapping[str, Any]) -> None:
    if job["step"] not in shown:
        for earlier in shown.values():
            progress.update(earlier, total=1, completed=1)
        shown[job["step"]] = progress.add_task(job["step"], total=None)
    progress.update(shown[job["step"]], completed=job["done"], total=job["total"] or None)


def bars(console: Console) -> Progress:
    """Progress bars for whatever takes longer than two seconds."""
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )
