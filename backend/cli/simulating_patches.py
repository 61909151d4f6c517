"""`simulate` where masks are learnt: a model of one site comes to another, and patches are corrected there."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import typer
from rich.table import Table

from backend.cli.terminal import bar, console, fail
from tasks.datafolder import DataFolder

STRATEGIES = "hybrid,paper,random,foreground-random"
BUDGET = 20


def simulate_patches(
    read: DataFolder,
    source: str | None,
    target: str | None,
    strategies: str | None,
    budget: int | None,
    seeds: int,
    as_json: bool,
) -> None:
    """Replay and print; `fail`s with a sentence where the folder has nothing to replay."""
    from backend.learning.image_error import ImageError
    from backend.replay.material import MaterialError
    from backend.replay.patch_choices import CHOICES
    from backend.replay.patch_run import COUNTS, REFIT, SMALL, replay_patches
    from backend.replay.sites import site_called, sites
    from tasks.mask_files import MaskError

    asked = (name.strip().replace("_", "-") for name in (strategies or STRATEGIES).split(","))
    chosen = list(dict.fromkeys(name for name in asked if name))
    if unknown := [name for name in chosen if name.removesuffix(REFIT) not in CHOICES]:
        raise fail(
            f"there is no strategy {', '.join(map(repr, unknown))} for masks; there are {', '.join(CHOICES)}, each also"
            f" with {REFIT} behind it"
        )
    budget = BUDGET if budget is None else budget
    steps = sum(count <= budget for count in COUNTS)
    moments: dict[str, dict[int, list[Any]]] = {name: {} for name in chosen}
    try:
        pair = site_called(read, source, "source"), site_called(read, target, "target")
        with bar() as progress:
            task = progress.add_task("replaying", total=seeds * len(chosen) * steps)
            for seed in range(seeds):
                drawn = sites(read, *pair, seed)
                for name, moment in replay_patches(drawn, chosen, budget, replace(SMALL, seed=seed)):
                    moments[name].setdefault(seed, []).append(moment)
                    progress.advance(task)
    except (MaterialError, ImageError, MaskError, OSError, FloatingPointError) as error:
        raise fail(str(error)) from error
    _print(moments, *pair, as_json)


def _print(moments: Mapping[str, Mapping[int, Any]], source: str, target: str, as_json: bool) -> None:
    from backend.replay.patch_curves import AT, RIVAL, summary

    table = Table("strategy", "patches", "Dice", f"Dice at {source}", "clicks", "foreground pixels", "seconds")
    said = []
    for name, own in moments.items():
        found = summary(name, own, moments.get(RIVAL) if name != RIVAL else None)
        if as_json:
            typer.echo(json.dumps(found | {"source": source, "target": target}))
        for place, count in enumerate(found["patches"]):
            figures = [found[figure][place][0] for figure in ("dice", "source_dice")]
            costs = [found[figure][place][0] for figure in ("clicks", "foreground_pixels", "seconds")]
            table.add_row(name, str(count), *(f"{value:.3f}" for value in figures), *(f"{cost:.0f}" for cost in costs))
        if found["p"] is not None:
            mean, low, high = found["over_foreground_random"]
            said.append(
                f"{name} less {RIVAL} after {AT} patches: {mean:+.3f} ({low:+.3f} to {high:+.3f}), p = {found['p']:.3f}"
            )
    if not as_json:
        console.print(table)
        console.print(f"Dice on images of {target} that are never corrected; means over the seeds.")
        for line in said:
            console.print(line)
