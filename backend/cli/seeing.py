"""`status` and `rank`: what runs and what comes next."""

from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from backend.cli.terminal import Json, ProjectOption, chosen_project, console, no_model, show


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
    console.print(f"\n[bold]Project {project['project']}[/bold] {escape(project['title'])}")
    if project["connection"] == "none":
        console.print("  disconnected: it is looked after no more")
    for alarm in project["alarms"]:
        console.print(f"  [red]alarm[/red] {escape(alarm)}")
    console.print(f"  tasks {project['tasks']}, open {project['tasks_open']}, annotations {project['annotations']}")
    failed = project["images_failed"]
    for row in failed["tasks"]:
        console.print(f"  [yellow]task {row['task']}[/yellow] {escape(row['reason'])}")
    if failed["count"] > len(failed["tasks"]):
        console.print(f"  and {failed['count'] - len(failed['tasks'])} more whose image cannot be read")
    for task in project["tasks_with_problems"]:
        console.print(f"  [yellow]task {task['task']}[/yellow] {escape('; '.join(task['problems']))}")
    reading = project["catching_up"]
    if reading["waiting"]:
        doing = (reading["job"] or {}).get("state") == "running"
        console.print(f"  {reading['waiting']} images to be read{': ' + reading['job']['step'] if doing else ''}")
    queue, training, job = project["queue"], project["training"], project["training"]["job"]
    console.print(f"  queue {queue['published'] or 'not published yet'}: {queue['open']} of {queue['size']} still open")
    if project["expert"]["waiting"]:
        where = project["expert"]["path"] or "the project's Data Manager, once somebody has opened it"
        console.print(f"  for the expert: {project['expert']['waiting']}, in {where}, Label Tasks As Displayed")
    if project["probabilities"] is not None:
        console.print(
            f"  ranked by {escape(project['probabilities'])}, which was imported: no training until one is asked for"
        )
    if training["stopped"] is None:
        console.print(f"  labels until the next training: {training['labels_until_next']} of {training['needed']}")
    else:
        console.print("  stopped: no training comes unasked; `second-look resume` takes that back")
    if job is not None:
        progress = f" {job['done']}/{job['total']}" if job["total"] else ""
        console.print(
            f"  job {job['id']} {job['state']}: {job['step']}{progress} {job['error'] or ''} ({job['reason']})",
            markup=False,
        )
    for sentence in project["limits"]:
        console.print(f"  [yellow]note[/yellow] {escape(sentence)}")
    if project["model"] is not None:
        tables = _tables(project["model"]["holdout"])
        learnt = f"learnt from {project['model']['labels']} labelled tasks" if tables else "has learnt nothing"
        console.print(f"  model v{project['model']['version']}, {learnt}")
        if project["model"]["verdict"] is not None:
            console.print(f"  {project['model']['verdict']['reason']}", markup=False)
        for refused in project["model"]["refused"]:
            console.print(f"  v{refused['version']} was refused: {refused['reason']}", markup=False)
        for table in tables:
            console.print(table)
        for sentence in project["model"]["weighing"]:
            console.print(f"  {sentence}", markup=False)
        if project["masks"] is not None:
            _print_masks(project["masks"])
        if project["evidence"] is not None:
            _print_evidence(project["evidence"])
        _print_stopping(project["stopping"])
        for head, version in project["model"]["archived"].items():
            console.print(f"  {head} is no longer in the label config; version {version} keeps what was learnt of it")


def _tables(holdout: dict[str, Any]) -> list[Table]:
    """The figures of the labels that were learnt, and of the masks."""
    labels = Table("control", "n", "adjudicated", "accuracy", "macro F1", "AUC", "ECE", title="hold-out, labels")
    masks = Table("masks", "n", "adjudicated", "class", "Dice", title="hold-out, masks")
    for head, figures in holdout.items():
        counts = [head, str(figures["n"]), str(figures["adjudicated"])]
        if "dice" not in figures:
            labels.add_row(*counts, *(_figure(figures[name]) for name in FIGURES))
            continue
        for name, dice in figures["classes"].items():
            masks.add_row(*counts, name, _figure(dice))
    return [table for table in (labels, masks) if table.row_count]


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _print_masks(masks: dict[str, Any]) -> None:
    spent = masks["spent"]
    share = "" if masks["trusted"] is None else f"; {100 * masks['trusted']:.0f} % of the pixels of these are trusted"
    console.print(
        f"  masks in {masks['marked']} images, of people in {masks['by_people']};"
        f" reviewed: {spent['patches']} patches and {spent['images']} whole images{share}"
    )
    suspects = masks["suspects"]
    if suspects is not None and suspects["count"]:
        worst = ", ".join(str(row["task"]) for row in suspects["tasks"][:SUSPECTS])
        counts = f"{suspects['count']} of {suspects['recorded']}"
        console.print(f"  masks on record that look wrong: {counts}, worst first: tasks {worst}")
    for row in masks["problems"]["tasks"]:
        console.print(f"  [yellow]task {row['task']}[/yellow] {escape(' '.join(row['problems']))}")
    if masks["problems"]["count"] > len(masks["problems"]["tasks"]):
        more = masks["problems"]["count"] - len(masks["problems"]["tasks"])
        console.print(f"  and {more} more with regions that cannot be read")


def _print_evidence(evidence: dict[str, Any]) -> None:
    console.print(f"  {evidence['control']}: {evidence['line']}")
    wrong, saved, bias = evidence["wrong_labels"], evidence["labels_saved"], evidence["automation_bias"]
    if wrong is not None:
        counts = f"{wrong['total']:.0f} ({wrong['low']:.0f} to {wrong['high']:.0f})"
        console.print(f"  wrong labels in all, estimated: {counts}, of which {wrong['found']} are found")
    for name, how in (("estimated", "estimated"), ("by_control", "by the control arm")):
        rate = evidence["error_rate_left"][name]
        if rate is not None:
            console.print(f"  labels left wrong, {how}: {_share(rate)}")
    if saved["shown"]:
        most = "" if saved["high"] is None else f" to {saved['high']:.0f}"
        console.print(f"  reviews saved against chance: {saved['low']:.0f}{most}")
    elif evidence["reviewed"]:
        low = "" if saved["low"] is None else f": the interval reaches down to {saved['low']:.0f}"
        console.print(f"  reviews saved against chance: none shown{low or ' yet'}")
    if bias[0] is not None:
        more = f"{100 * bias[0]:+.0f} % ({100 * bias[1]:+.0f} to {100 * bias[2]:+.0f})"
        console.print(f"  who sees the model's answer gives it more often, by {more}")


def _print_stopping(advice: dict[str, Any]) -> None:
    console.print(f"  {escape(advice['line'])}")
    for row in advice["criteria"]:
        console.print(f"    {'yes' if row['met'] else '-' if row['met'] is None else 'no':3} {escape(row['said'])}")
    wrong = advice["wrong_labels"]
    if wrong["said"] is not None:
        console.print(f"  {wrong['said']}")
    for row in wrong["next"]:
        found, rate = row["found"], row["rate_left"]
        console.print(
            f"  the next {row['reviews']} reviews find {found[0]:.0f} wrong labels ({found[1]:.0f} to {found[2]:.0f});"
            f" left wrong after them: {_share(rate)}"
        )
    for figure in advice["figures"]:
        if figure["said"] is not None:
            console.print(f"  {figure['said']}")
        for row in figure["next"]:
            then = row["then"]
            console.print(
                f"  {figure['name']} after {row['reviews']} more: {then[0]:.3f} ({then[1]:.3f} to {then[2]:.3f}),"
                f" now {figure['now']:.3f}"
            )


def _share(rate: list[float]) -> str:
    return f"{100 * rate[0]:.1f} % ({100 * rate[1]:.1f} to {100 * rate[2]:.1f})"


FIGURES = ("accuracy", "macro_f1", "auc", "ece")
SUSPECTS = 10  # named in one line


def rank(top: Annotated[int, typer.Option(min=1)] = 100, project: ProjectOption = None, as_json: Json = False) -> None:
    """The queue: what is published and still open, then what would follow, with scores and reasons."""
    from backend.plan import preview
    from backend.registry import Registry
    from backend.settings import settings
    from tasks.store import Store

    chosen = settings()
    store = Store.open(chosen.database)
    number = chosen_project(store, project)
    rows = preview(store, Registry(chosen.state_dir), chosen, number, top)
    table = Table("place", "task", "kind", "score", "U", "D", "published", "why")
    for row in rows:
        numbers = [
            "-" if row[name] is None else f"{row[name]:.3f}" for name in ("score", "uncertainty", "disagreement")
        ]
        table.add_row(
            str(row["place"]),
            str(row["task"]),
            row["kind"],
            *numbers,
            "yes" if row["published"] else "",
            row["why"].replace("\n", " "),
        )
    known = store.project(number)
    said = no_model(number)
    if known is not None and known.published is not None:
        said = "nothing is left to review: every task is answered, or its image cannot be read"
    show({"tasks": rows}, as_json, table if rows else said)
