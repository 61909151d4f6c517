"""`report`: all that is known of a project on one page, as a file."""

from pathlib import Path
from typing import Annotated

import typer

from backend.cli.terminal import Json, ProjectOption, chosen_project, show


def report(
    project: ProjectOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The HTML file to write; without it report-N.html in this folder")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the project's report: progress, models, before and after, labels changed, annotators; opens offline."""
    from backend.registry import whole
    from backend.report.facts import gather
    from backend.report.page import render
    from backend.settings import settings
    from tasks.store import Store

    chosen = settings()
    store = Store.open(chosen.database)
    number = chosen_project(store, project)
    found = gather(store, chosen, number)
    file = out or Path(f"report-{number}.html")
    with whole(file) as part:
        part.write_text(render(found), encoding="utf-8")
    show(found | {"file": str(file)}, as_json, f"{file}: project {number}, {found['reviewed']} tasks reviewed")
