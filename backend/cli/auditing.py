"""`audit`: the ledger checked, replayed, exported, and asked about one task."""

import csv
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from backend.cli.terminal import Json, ProjectOption, chosen_project, console, fail, show

audit = typer.Typer(
    no_args_is_help=True, help="The record of every label event: check it, replay it, export it, read it."
)


def _opened(project: int | None) -> tuple[Any, Any, int]:
    """The store, the registry and the project's number."""
    from backend.registry import Registry
    from backend.settings import settings
    from tasks.store import Store

    chosen = settings()
    store = Store.open(chosen.database)
    return store, Registry(chosen.state_dir), chosen_project(store, project)


@audit.command()
def verify(
    heads: Annotated[
        list[str] | None, typer.Option("--head", help="HASH:LENGTH that was written down; may be repeated")
    ] = None,
    project: ProjectOption = None,
    as_json: Json = False,
) -> None:
    """Find any entry altered, removed or moved, and by the heads kept elsewhere a cut tail; exits 1 if there is one."""
    from rich.text import Text
    from sqlalchemy import select

    from backend import kept_heads
    from tasks import audit as trail
    from tasks import ledger
    from tasks.recording import MODEL_EVENTS
    from tasks.tables import Entry

    written = [_head(text) for text in heads or []]
    store, registry, number = _opened(project)
    kept = written + kept_heads.kept(registry, number)
    with store.snapshot() as session:
        head = ledger.head(session, number)
        broken = ledger.verify(session, number, kept)
        if not broken:
            models = select(Entry).where(Entry.project_id == number, Entry.event.in_(MODEL_EVENTS)).order_by(Entry.seq)
            broken += kept_heads.altered(registry, number, session.scalars(models))
            replayed = trail.replay(ledger.chain(session, number))
            broken += trail.differences(replayed, trail.stored(session, number))
    value = {"project": number, **kept_heads.as_json(head), "kept_heads": len(kept), "broken": broken}
    text = f"whole: {head.length} entries, {len(kept)} kept heads agree, the store holds the same labels"
    lines = [*broken, f"{len(broken)} breaks in {head.length} entries"] if broken else [text]
    show(value, as_json, Text("\n".join([*lines, f"head {head.hash}:{head.length}"])))  # a class may have brackets
    if broken:
        raise typer.Exit(1)


def _head(text: str) -> Any:
    from tasks.ledger import Head

    digest, _, length = text.partition(":")
    if len(digest) != 64 or not length.isdecimal():
        raise fail(f"{text!r} is no head: write it as `second-look audit verify` prints it, HASH:LENGTH")
    return Head(digest, int(length), "the head you wrote down")


@audit.command()
def replay(
    at: Annotated[str, typer.Option(help="ISO 8601 time, in this machine's zone where it names none")] = "now",
    project: ProjectOption = None,
    as_json: Json = False,
) -> None:
    """Print the label set of any moment, as this backend knew it then: one line of canonical JSON a task."""
    import hashlib

    from tasks import audit as trail
    from tasks import ledger

    try:
        moment = trail.moment(at)
    except ValueError as error:
        raise fail(str(error)) from error
    store, _, number = _opened(project)
    with store.snapshot() as session:
        lines = list(trail.replay(ledger.chain(session, number), moment).lines())
    if as_json:
        digest = hashlib.sha256("".join(lines).encode()).hexdigest()
        show(
            {"project": number, "at": moment, "sha256": digest, "tasks": [json.loads(line) for line in lines]}, True, ""
        )
        return
    sys.stdout.writelines(lines)


@audit.command()
def export(
    file: Annotated[
        Path, typer.Argument(help="Where to write: .csv (a row a task and event) or .jsonl (entries whole)")
    ],
    project: ProjectOption = None,
    as_json: Json = False,
) -> None:
    """Write the ledger as a table for people (CSV) or as its entries with their hashes (JSON Lines)."""
    from backend.registry import whole
    from tasks import audit as trail
    from tasks import ledger

    if file.suffix not in (".csv", ".jsonl"):
        raise fail(f"{file}: name a file that ends in .csv or .jsonl")
    store, _, number = _opened(project)
    lines = 0
    with store.snapshot() as session, whole(file) as part, part.open("w", newline="", encoding="utf-8") as out:
        head = ledger.head(session, number)
        table = csv.writer(out)
        if file.suffix == ".csv":
            table.writerow(trail.COLUMNS)
        for entry in ledger.chain(session, number):
            if file.suffix == ".csv":
                rows = [trail.cells(row) for row in trail.rows(entry)]
                table.writerows(rows)
                lines += len(rows)
            else:
                out.write(ledger.canonical(trail.verbatim(entry)) + "\n")
                lines += 1
    value = {"project": number, "file": str(file), "lines": lines, "hash": head.hash, "length": head.length}
    show(value, as_json, f"{file}: {lines} lines of {head.length} entries\nhead {head.hash}:{head.length}")


@audit.command(name="show")
def show_task(
    task: Annotated[int, typer.Option(help="Label Studio's number of the task")],
    project: ProjectOption = None,
    as_json: Json = False,
) -> None:
    """Who did what to one task, when, from which labels to which, and what the model showed then."""
    from sqlalchemy import or_, select

    from tasks import audit as trail
    from tasks.tables import Entry

    store, _, number = _opened(project)
    with store.snapshot() as session:
        mine = or_(Entry.task_id == task, Entry.event.in_((*trail.TASK_EVENTS, "configured")))
        query = select(Entry).where(Entry.project_id == number, mine).order_by(Entry.seq)
        labels, rows = trail.LabelSet(), []
        for entry in session.scalars(query):
            found = [row for row in trail.rows(entry) if row["task"] == task]
            if found or entry.event == "configured":
                labels.apply(entry)
                rows += found
        versions = _versions(session, number, {row["shown_version"] for row in rows})
    if not rows:
        raise fail(f"project {number}: the ledger names no task {task}")
    settled = dict(labels.settled()).get(task)
    holds = None if settled is None else {"labels": settled.labels, "adjudicated": sorted(settled.adjudicated)}
    painting = {row["annotation"]: trail.short(row["results"]) for row in labels.marked().get(task, [])}
    if holds is not None and painting:
        holds["marks"] = painting
    value = {"project": number, "task": task, "holds": holds, "events": rows, "versions": versions}
    if as_json:
        show(value, True, "")
        return
    if settled is None:
        said = "deleted"
    elif settled.flagged:
        said = "waits for the expert"
    else:
        masks = [f"annotation {number} ({trail.spoken(marks)})" for number, marks in painting.items()]
        said = f"holds {'; '.join(filter(None, [trail.spoken(settled.labels), *masks])) or 'no label'}"
    console.print(f"Task {task} of project {number}: {said}", highlight=False, markup=False)
    console.print(_table(rows))
    for version, about in versions.items():
        console.print(f"v{version}: {about}", highlight=False, markup=False)


def _versions(session: Any, project: int, numbers: set[int | None]) -> dict[int, str]:
    """What the ledger says of the versions that were shown: when they came, and their calibration."""
    from sqlalchemy import select

    from tasks.recording import MODEL_EVENTS
    from tasks.tables import Entry

    models = select(Entry).where(Entry.project_id == project, Entry.event.in_(MODEL_EVENTS)).order_by(Entry.seq)
    found = {}
    for entry in session.scalars(models):
        if entry.body["version"] in numbers:
            model = (entry.body.get("model") or "unknown")[:12]
            temperatures = entry.body.get("temperatures", {}).items()
            calibration = ", ".join(f"{head} {value:.2f}" for head, value in temperatures) or "none"
            about = f"{entry.event} {entry.at[:19]}, model {model}, temperatures {calibration}"
            found[entry.body["version"]] = about
    return found


def _table(rows: list[dict[str, Any]]) -> Any:
    from rich.table import Table
    from rich.text import Text

    from tasks.audit import OUR_EVENTS

    table = Table("when (UTC)", "who", "what", "from → to", "shown", "seconds", "sure", show_lines=True)
    for row in rows:
        nobody = "Second Look" if row["event"] in OUR_EVENTS else "unknown"
        who = nobody if row["actor"] is None else f"user {row['actor']}"
        what = [row["action"] or row["event"], f"annotation {row['annotation']}" if row["annotation"] else ""]
        cells = [
            row["at"][:19].replace("T", " "),
            who,
            "\n".join(filter(None, [*what, row["because"]])),
            _change(row["from"], row["to"]),
            _shown(row),
            "" if row["lead_time"] is None else f"{row['lead_time']:.1f}",
            "" if row["confidence"] is None else f"{row['confidence']:.0%}",
        ]
        table.add_row(*map(Text, cells))  # a class may have brackets in its name
    return table


def _change(before: dict[str, list[str]] | None, after: dict[str, list[str]] | None) -> str:
    """Line by line what changed; where nothing did, what was confirmed."""
    from tasks.audit import spoken

    before, after = before or {}, after or {}
    lines = []
    for head in sorted(before.keys() | after.keys()):
        one, other = ("|".join(labels[head]) or "-" if head in labels else "·" for labels in (before, after))
        if one != other:
            lines.append(f"{head}: {one} → {other}")
    return "\n".join(lines or spoken(after).split("; "))


def _shown(row: dict[str, Any]) -> str:
    """What the annotator saw of the model: an import or a deletion saw nothing, and asks for no word."""
    if row["shown"] is None:
        return ""
    version = [] if row["shown_version"] is None else [f"v{row['shown_version']}, {row['shown_kind']}"]
    return "\n".join([*version, *row["shown"].split("; ")])
