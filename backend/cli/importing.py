"""`import-probabilities`: rank by out-of-fold probabilities that were made elsewhere."""

from pathlib import Path
from typing import Annotated, Any

import typer

from backend.cli.running import run_job
from backend.cli.terminal import Json, ProjectOption, chosen_project, fail, show


def import_probabilities(
    file: Annotated[Path, typer.Argument(help="CSV: task, image or file; control:class columns; optionally member")],
    project: ProjectOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check the file against the project")] = False,
    as_json: Json = False,
) -> None:
    """Rank by out-of-fold probabilities made elsewhere, without our training, until one is asked for.

    Every fault of the file is named with its line; then nothing is applied.
    """
    from backend import imported, jobs
    from backend.label_studio import open_client
    from backend.probabilities import BadProbabilities, read
    from backend.registry import Registry
    from backend.settings import settings
    from tasks import sync
    from tasks.schema import parse_label_config
    from tasks.store import Store

    chosen = settings()
    store, registry = Store.open(chosen.database, chosen.migrations_url), Registry(chosen.state_dir)
    number = chosen_project(store, project)
    if not jobs.workers(store):  # which would have done it
        with store.turn(number):
            sync.reconcile(store, open_client(chosen), number)
    row = store.project(number)
    assert row is not None  # chosen_project knows it
    names = imported.names(store, number)
    try:
        found = read(file, parse_label_config(row.label_config).heads, names)
        imported.check_measure(chosen.tuned(row.extra_params).uncertainty, found)
    except OSError as error:
        raise fail(f"{file} cannot be read: {error.strerror}") from error
    except BadProbabilities as error:
        raise fail(f"{error}\nnothing was applied") from error

    ids, blocks = found.blocks()
    value: dict[str, Any] = {
        "file": file.name,
        "project": number,
        "tasks": len(ids),
        "tasks_left_out": len(names["task"]) - len(ids),
        "members": sorted(len(next(iter(members.values()))) for _, members in blocks),
        "controls": list(found.heads),
        "columns_left_alone": list(found.left_alone),
        "version": imported.in_force(store, registry, number, found.sha256),
        "applied": False,
    }
    if dry_run or value["version"] is not None:
        show(value, as_json, _text(value))
        return
    imported.stage(registry, number, found)
    job = run_job(chosen, store, number, imported.KIND, f"{file.name} was imported")
    value |= {"version": job.version, "applied": job.state == "done", "error": job.error}
    show(value, as_json, _text(value))
    if job.state != "done":
        raise typer.Exit(1)


def _text(value: dict[str, Any]) -> str:
    lines = [f"{value['file']}: {value['tasks']} tasks, controls {', '.join(value['controls'])}"]
    if value["tasks_left_out"]:
        lines.append(f"{value['tasks_left_out']} tasks of the project are not in it: they are not ranked")
    if value["columns_left_alone"]:
        lines.append(f"columns that were left alone: {', '.join(value['columns_left_alone'])}")
    if value.get("error"):
        lines.append(f"failed: {value['error']}")
    elif value["applied"]:
        lines.append(f"version {value['version']} orders the queue, until `second-look cycle` or Start Training trains")
    elif value["version"] is not None:
        lines.append(f"version {value['version']} was made from this very file: nothing to do")
    else:
        lines.append("nothing was applied")
    return "\n".join(lines)
