"""`models` and `promote`: the versions with what decided over each, and an admin's word over it."""

import getpass
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from backend.cli.running import run_job
from backend.cli.terminal import Json, ProjectOption, chosen_project, fail, no_model, show


def models(project: ProjectOption = None, as_json: Json = False) -> None:
    """The versions of a project: their hold-out figures, which took over and which were refused, and why."""
    from backend import promotion
    from backend.registry import Registry
    from backend.settings import settings
    from tasks.store import Store

    chosen = settings()
    store = Store.open(chosen.database)
    number = chosen_project(store, project)
    rows = promotion.listed(store, Registry(chosen.state_dir), number)
    show({"project": number, "versions": rows}, as_json, _table(rows) if rows else no_model(number))


def promote(
    version: Annotated[int, typer.Argument(min=1, help="The version to put in force, as `models` lists it")],
    because: Annotated[str, typer.Option("--because", help="Why: kept in the ledger, beside your user name")],
    project: ProjectOption = None,
    as_json: Json = False,
) -> None:
    """Put any kept version in force, whatever the test said, and publish its order; on the record.

    It goes on under a new number. A running worker does it; without one, this command does.
    """
    from backend import promotion
    from backend.registry import Registry
    from backend.settings import settings
    from tasks.store import Store

    chosen = settings()
    store, registry = Store.open(chosen.database), Registry(chosen.state_dir)
    number = chosen_project(store, project)
    if not because.strip():
        raise fail("--because must say why: it is kept in the ledger")
    decision = promotion.Decision(version, _who(), because.strip())
    try:
        promotion.check(store, registry, number, version)
    except promotion.NotPromotable as error:
        raise fail(str(error)) from error
    promotion.stage(registry, number, decision)
    job = run_job(chosen, store, number, promotion.KIND, f"{decision.who} put version {version} in force")
    value = {"project": number, "of": version, "version": job.version, "who": decision.who, "because": decision.because}
    value |= {"applied": job.state == "done", "error": job.error}
    done = f"version {version} is in force, as version {job.version}; the ledger names {decision.who}"
    show(value, as_json, done if job.state == "done" else f"failed: {job.error}")
    if job.state != "done":
        raise typer.Exit(1)


def _who() -> str:
    """The user of this machine, as far as it is known: a container's may have no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "admin"


def _table(rows: list[dict[str, Any]]) -> Group:
    drawn = any("dice" in said for row in rows for said in row["holdout"].values())
    figures = {"auc": "AUC", "macro_f1": "macro F1", "ece": "ECE"} | ({"dice": "Dice"} if drawn else {})
    table = Table("version", "made (UTC)", "labels", "control", *figures.values(), "", show_lines=True)
    for row in rows:
        state = [name.replace("_", " ") for name in ("in_force", "published") if row[name]]
        state += [] if (row["verdict"] or {}).get("takes_over", True) else ["refused"]
        state += [] if row["kept"] else ["folder gone"]
        made = datetime.fromtimestamp(row["created_at"], UTC).strftime("%Y-%m-%d %H:%M")
        heads = row["holdout"].items() or [("-", {})]
        lines = [[head, *(_figure(said.get(name)) for name in figures)] for head, said in heads]
        columns = ["\n".join(column) for column in zip(*lines, strict=True)]
        table.add_row(f"v{row['version']}", made, str(row["labels"]), *columns, "\n".join(state))
    reasons = [f"v{row['version']}: {row['verdict']['reason']}" for row in rows if row["verdict"] is not None]
    return Group(table, *map(Text, reasons))


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
