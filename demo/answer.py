"""`demo --oracle`: the oracle answers tasks of a demo that runs in another terminal, and measures before and after."""

import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from backend import status
from backend.settings import Settings
from demo import labelstudio, oracle, run, truth
from demo.correction import known_masks
from demo.stack import read_state
from tasks import datafolder
from tasks.schema import parse_label_config
from tasks.store import Store

LOOK = 1.0  # seconds the oracle looks at a task
PATIENCE_S = 900.0
FIGURES = ("accuracy", "macro_f1", "auc", "ece", "dice")


def answer(folder: Path, count: int, console: Console) -> dict[str, Any]:
    """Let the oracle answer `count` tasks of the demo that runs in `folder`, and measure before and after.

    Returns answered, skipped, corrected (answers that changed a label on record), and per version the hold-out
    metrics on the truth. Raises DemoError where no demo runs there.
    """
    kept = read_state(folder)
    if not kept.get("pids"):
        raise run.DemoError(
            f"no demo runs in {folder}: start one with `second-look demo --folder {folder}` and let it run"
        )
    about = kept["demo"]
    config = Path(about["label_config"]).read_text()
    schema = parse_label_config(config)
    read = datafolder.read(Path(about["data"]), schema, labelstudio.config_fields(config))
    credentials = labelstudio.Credentials.in_folder(folder)
    store = Store.open(f"sqlite:///{(folder / 'state' / 'second-look.db').resolve()}")
    with (
        closing(labelstudio.session(about["url"], credentials.admin)) as first,
        closing(labelstudio.sign_up(first, credentials.annotator)) as second,
        run.bars(console) as progress,
    ):
        people = [
            oracle.Annotator(first, about["project"], schema, "admin"),
            oracle.Annotator(second, about["project"], schema, "annotator"),
        ]
        task = progress.add_task("answering", total=count)
        visits = []
        for visit in oracle.take_turns(people, read.truth, count, LOOK, known_masks(read)):
            visits.append(visit)
            progress.update(task, advance=1)
        _retrain(store, folder, first, about["project"], progress)
    versions = truth.metrics_by_version(store, folder / "state", about["project"], schema, read)
    return {
        "answered": sum(not visit.skipped for visit in visits),
        "skipped": sum(visit.skipped for visit in visits),
        "corrected": truth.corrected(store, about["project"]),
        "model_versions": versions,
    }


def _retrain(store: Store, folder: Path, session: httpx.Client, project: int, progress: Progress) -> None:
    """Have everything learnt that was answered: a retraining rests twice as long as the last one took, unless asked."""
    task = progress.add_task("retraining", total=None)
    settings = Settings(state_dir=folder / "state")
    labelstudio.start_training(session, project)
    deadline = time.monotonic() + PATIENCE_S
    while (status.of_project(store, settings, project)["training"]["job"] or {})["state"] in ("queued", "running"):
        if time.monotonic() > deadline:
            raise run.DemoError(f"no retraining within {PATIENCE_S:.0f} s: see {folder}/logs/worker.log")
        time.sleep(0.5)
    progress.update(task, total=1, completed=1)


def before_and_after(value: Mapping[str, Any]) -> Table:
    """The first and the last version's hold-out figures on the truth, side by side."""
    first, last = value["model_versions"][0], value["model_versions"][-1]
    corrected = f", {value['corrected']} labels on record corrected" if value["corrected"] else ""
    title = (
        f"{value['answered']} answered{corrected};"
        f" hold-out on the truth, v{first['version']} before and v{last['version']} after"
    )
    rows = [(name, first["holdout"].get(name, {}), figures) for name, figures in last["holdout"].items()]
    rows += [
        (f"{name}, {site}", {"dice": before.get("sites", {}).get(site)}, {"dice": dice})
        for name, before, after in rows
        for site, dice in after.get("sites", {}).items()
    ]
    columns = [figure for figure in FIGURES if any(after.get(figure) is not None for _, _, after in rows)]
    table = Table("control", *columns, title=title)
    for name, before, after in rows:
        table.add_row(name, *(f"{_figure(before, column)} > {_figure(after, column)}" for column in columns))
    return table


def _figure(figures: Mapping[str, Any], name: str) -> str:
    return "-" if figures.get(name) is None else f"{figures[name]:.3f}"
