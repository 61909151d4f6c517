"""`stop` and `resume`: whether trainings come unasked, decided by hand and on the record."""

from typing import Annotated

import typer

from backend.cli.terminal import Json, ProjectOption, chosen_project, fail, show

Because = Annotated[str, typer.Option("--because", help="Why, for the record and for whoever reads `status`")]


def stop(
    because: Because = "asked for on the command line", project: ProjectOption = None, as_json: Json = False
) -> None:
    """Enough is reviewed: no training comes unasked any more; the order goes on, and its tasks say so."""
    from rich.text import Text

    from backend.ending import stop as end
    from backend.settings import settings
    from tasks.store import Store

    if not because.strip():
        raise fail("--because is empty: say why, or leave it out")
    store = Store.open(settings().database)
    number = chosen_project(store, project)
    changed = end(store, number, because, "command line")
    now = store.project(number)
    assert now is not None  # it was chosen
    value = {"project": number, "stopped": now.stopped, "changed": changed}
    done = "stopped" if changed else "was stopped before"
    text = (
        f"Project {number} {done}: {now.stopped}\n`second-look cycle` still trains, `second-look resume` takes it back."
    )
    show(value, as_json, Text(text))


def resume(
    because: Because = "asked for on the command line", project: ProjectOption = None, as_json: Json = False
) -> None:
    """Take `stop` back, also one that came by itself: trainings come again when enough is new."""
    from backend.ending import resume as go_on
    from backend.settings import settings
    from tasks.store import Store

    store = Store.open(settings().database)
    number = chosen_project(store, project)
    changed = go_on(store, number, because)
    text = f"Project {number}: trainings come again." if changed else f"Project {number} was not stopped."
    show({"project": number, "stopped": None, "changed": changed}, as_json, text)
