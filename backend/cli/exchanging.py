"""`export` and `import`: review in a spreadsheet, without the screen."""

from pathlib import Path
from typing import Annotated, Any

import typer

from backend.cli.terminal import Json, ProjectOption, bar, chosen_project, fail, no_model, show


def export_review(
    file: Annotated[Path, typer.Argument(help="Where to write the CSV file")],
    top: Annotated[int | None, typer.Option(min=1, help="Only so many tasks; without it, all that are scored")] = None,
    project: ProjectOption = None,
    as_json: Json = False,
) -> None:
    """Write the scored tasks as CSV, the most suspicious labels first, with an empty column a control for decisions."""
    import csv

    from rich.text import Text

    from backend import exchange
    from backend.registry import Registry, whole
    from backend.settings import settings
    from tasks.exchange import BadReview, lines
    from tasks.store import Store

    chosen = settings()
    store = Store.open(chosen.database)
    number = _with_labels(store, project)
    found = exchange.suspects(store, Registry(chosen.state_dir), chosen, number, top)
    if found is None:
        raise fail(no_model(number))
    try:
        # The byte order mark tells Excel that it is UTF-8.
        with whole(file) as part, part.open("w", newline="", encoding="utf-8-sig") as out:
            csv.writer(out).writerows(lines(found.heads, found.rows))
    except OSError as error:
        raise fail(f"{file} cannot be written: {error.strerror}") from error
    except BadReview as error:
        raise fail(str(error)) from error
    value = {
        "project": number,
        "file": str(file),
        "version": found.version,
        "tasks": len(found.rows),
        "withheld": found.withheld,
    }
    text = f"{file}: {value['tasks']} tasks by version {found.version}"
    if found.withheld:
        text += f"\n{found.withheld} tasks are kept out: the hold-out, and what is drawn at random, are answered unseen"
    if not any(row.suspicion for row in found.rows):
        text += "\nno label is suspected: none on record is still to be checked that the model has learnt to judge"
    show(value, as_json, Text(text))


def import_review(
    file: Annotated[Path, typer.Argument(help="A file of `export` with decisions; rows without one are left alone")],
    project: ProjectOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check the file against the project")] = False,
    as_json: Json = False,
) -> None:
    """Apply the decisions of a review file as annotations by the token's user.

    Every fault of the file is named with its line; then nothing is applied. Twice the same file changes nothing.
    """
    import httpx
    from rich.text import Text

    from backend import exchange
    from backend.label_studio import open_client
    from backend.settings import settings
    from tasks.client import LabelStudioError
    from tasks.exchange import BadReview
    from tasks.store import Store

    chosen = settings()
    store = Store.open(chosen.database, chosen.migrations_url)
    number = _with_labels(store, project)
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise fail(f"{file} cannot be read: {error.strerror}") from error
    try:
        with bar() as progress:
            task = progress.add_task("annotating", total=None)
            value = exchange.bring_in(
                store,
                open_client(chosen),
                number,
                raw,
                file.name,
                dry_run=dry_run,
                progress=lambda done, total: progress.update(task, completed=done, total=total),
            )
    except BadReview as error:
        if as_json:
            faults = [{"line": line, "fault": fault} for line, fault in error.faults]
            show({"file": file.name, "project": number, "applied": 0, "faults": faults}, True, "")
        raise fail(f"{error}\nnothing was applied") from error
    except (LabelStudioError, httpx.HTTPError) as error:
        raise fail(f"Label Studio: {error}\nrun the import again: it goes on where it stopped") from error
    show(value, as_json, Text(_text(value)))
    if value["gone"]:
        raise typer.Exit(1)


def _with_labels(store: Any, project: int | None) -> int:
    """The number of the project meant, which has a label to review."""
    from tasks.exchange import MASKS_ALONE
    from tasks.schema import parse_label_config

    number = chosen_project(store, project)
    if not parse_label_config(store.project(number).label_config).heads:
        raise fail(f"project {number}: {MASKS_ALONE}")
    return number


def _text(value: dict[str, Any]) -> str:
    lines = [f"{value['file']}: {value['rows']} rows, {value['decided']} of them with a decision"]
    if value["columns_left_alone"]:
        lines.append(f"columns that were left alone: {', '.join(value['columns_left_alone'])}")
    if value["imported_before"] is not None:
        lines.append(f"this very file was imported at {value['imported_before']}: nothing to do")
    elif "to_apply" in value:
        lines.append(f"{value['to_apply']} annotations to make, {value['as_they_were']} are there; nothing was applied")
    else:
        lines.append(f"{value['applied']} annotations made, {value['as_they_were']} were there")
    if value["gone"]:
        lines.append(f"deleted in the meantime: tasks {', '.join(map(str, value['gone']))}")
    return "\n".join(lines)
