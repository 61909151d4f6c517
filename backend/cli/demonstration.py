"""`demo` and `phantoms`: the whole loop on images of known truth."""

import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from backend.cli.terminal import Json, bar, console, fail, show


def demo(
    folder: Annotated[Path, typer.Option(help="Where the demo keeps everything")] = Path("second-look-demo"),
    data: Annotated[Path | None, typer.Option(help="A data folder; without one, phantoms are drawn")] = None,
    label_config: Annotated[Path | None, typer.Option(help="Its label config; without one, label_config.xml")] = None,
    sample: Annotated[int | None, typer.Option(min=20, help="Use only so many images, by whole patients")] = None,
    oracle: Annotated[int | None, typer.Option(min=1, help="Answer so many tasks of the running demo")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Run the whole loop unattended in a fresh folder, and stop")
    ] = False,
    annotated: Annotated[
        bool, typer.Option("--annotated", help="With --check: the labels on record are imported as annotations")
    ] = False,
    reset: Annotated[bool, typer.Option("--reset", help="Remove the demo's folder")] = False,
    as_json: Json = False,
) -> None:
    """Start Label Studio, the backend and the worker on a project whose queue the model orders."""
    from demo import answer as answering
    from demo import check as checking
    from demo import run

    if annotated and not check:
        raise fail("--annotated goes with --check: a demo shows labels that are on record")
    try:
        if reset:
            run.reset(folder)
            show({"removed": str(folder)}, as_json, f"removed {folder}")
        elif oracle is not None:
            value = answering.answer(folder, oracle, console)
            show(value, as_json, answering.before_and_after(value))
        elif check:
            with tempfile.TemporaryDirectory(prefix="second-look-") as fresh:
                value = checking.check(Path(fresh), data, label_config, sample, Console(stderr=True), annotated)
            show(value, as_json, json.dumps(value, indent=1))
            if not value["closed"]:
                raise typer.Exit(1)
        else:
            run.demo(folder, data, label_config, sample, Console(stderr=True) if as_json else console, as_json)
    except run.DemoError as error:
        raise fail(str(error)) from error


def phantoms(
    folder: Annotated[Path, typer.Argument(help="New or empty folder to write")],
    images: Annotated[int, typer.Option(min=1)] = 600,
    seed: Annotated[int, typer.Option()] = 0,
    as_json: Json = False,
) -> None:
    """Write thyroid ultrasound phantoms as a data folder, with nodule masks and the truth in true_* columns."""
    from demo.phantoms import write_phantoms

    with bar() as progress:
        task = progress.add_task("drawing", total=images)
        ceiling = write_phantoms(
            folder, images, seed, lambda done, total: progress.update(task, completed=done, total=total)
        )
    value = {"folder": str(folder), "images": images, "seed": seed, "auc_ceiling": round(ceiling.realised, 4)}
    show(value, as_json, f"{images} images in {folder}; the true TI-RADS gives an AUC of {ceiling.realised:.3f}")
