"""What every command shares: where it prints, how it fails, which project is meant."""

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

console = Console()

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text")]
ProjectOption = Annotated[
    int | None, typer.Option("--project", help="Label Studio's number; needed if there are several")
]


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


def no_model(number: int) -> str:
    """What a command says that has nothing to show before a first model."""
    return f"project {number} has no model yet: let `second-look cycle` train one"


def bar() -> Progress:
    """A progress bar on standard error, so that --json keeps standard output to itself."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )


def chosen_project(store: Any, number: int | None) -> int:
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
