"""`simulate`: the loop replayed on labels or masks that are known, to see what each strategy would have saved."""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from backend.cli.simulating_patches import simulate_patches
from backend.cli.terminal import Json, bar, chosen_project, console, fail
from tasks.datafolder import DataFolder

STRATEGIES = "hybrid,entropy,margin,bald,disagreement,coverage,random"
BUDGET = 150
NOISE = 0.05  # of a data folder's labels; a project's own labels on record have their own wrong ones
Kind = Literal["uniform", "confusable"]


def simulate(
    folder: Annotated[Path | None, typer.Argument(help="A data folder: labels.csv beside its images")] = None,
    label_config: Annotated[Path | None, typer.Option(help="The data folder's label config")] = None,
    project: Annotated[int | None, typer.Option(help="Instead of a folder: a project's own finished labels")] = None,
    source: Annotated[str | None, typer.Option(help="Of masks: the site that the first model learns from")] = None,
    target: Annotated[str | None, typer.Option(help="Of masks: the site where patches are corrected")] = None,
    strategies: Annotated[str | None, typer.Option(help="Separated by commas")] = None,
    noise: Annotated[
        float | None, typer.Option(help="Share of the first control's labels to exchange; 0.05, of a project none")
    ] = None,
    noise_kind: Annotated[Kind, typer.Option(help="For which others")] = "uniform",
    budget: Annotated[
        int | None, typer.Option(min=0, help="Tasks to review, 150; of masks patches to correct, 20")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Reviews between two trainings")] = 25,
    seeds: Annotated[int, typer.Option(min=1, help="Replays of each strategy")] = 1,
    sample: Annotated[int | None, typer.Option(min=20, help="Use only so many images, by whole patients")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write the learning curves there, as SVG")] = None,
    as_json: Json = False,
) -> None:
    """Replay the loop with an oracle in the annotators' place, and recommend weights.

    Where the label config has masks, and a --source and a --target: what correcting patches there brings to a model
    from here. --json prints one object a line for each strategy.
    """
    from backend.cycle import NoTasks
    from backend.learning.backbone import WeightsError
    from backend.replay.affordable import affordable
    from backend.replay.curves import point
    from backend.replay.run import replay
    from backend.replay.strategies import STRATEGIES as KNOWN
    from backend.settings import settings

    masks = _masks(folder, label_config, source, target)
    if masks is not None:
        if project is not None or sample is not None or noise is not None or plot is not None:
            raise fail("--project, --sample, --noise and --plot are for labels: leave them out where masks are learnt")
        return simulate_patches(masks, source, target, strategies, budget, seeds, as_json)
    budget = BUDGET if budget is None else budget
    chosen = list(dict.fromkeys(name.strip() for name in (strategies or STRATEGIES).split(",") if name.strip()))
    if not chosen:
        raise fail(f"name a strategy: {', '.join(KNOWN)}")
    if unknown := [name for name in chosen if name not in KNOWN]:
        raise fail(f"there is no strategy {', '.join(map(repr, unknown))}; there are {', '.join(KNOWN)}")
    points: dict[str, list[Any]] = {name: [] for name in chosen}
    try:
        made = _material(folder, label_config, project, sample, noise, noise_kind)
        # A project's pixels are those of its own settings, and its backbones are what is asked about.
        chosen_settings, said = affordable(settings()) if project is None else (settings(), None)
        if said is not None:
            typer.echo(said, err=True)
        with bar() as progress:
            task = progress.add_task("replaying", total=seeds * len(chosen) * (1 + -(-budget // batch)))
            for seed in range(seeds):
                material = made(seed)
                own = chosen_settings.model_copy(update={"seed": seed})
                with tempfile.TemporaryDirectory(prefix="second-look-replay-") as state:
                    for name, moment in replay(material, own, chosen, budget, batch, Path(state)):
                        points[name].append(point(seed, material.schema.heads[0], moment))
                        progress.advance(task)
        if plot is not None:
            _draw(plot, points)
    except (OSError, NoTasks, WeightsError, ValueError) as error:
        raise fail(str(error)) from error
    _print(points, as_json)


def _masks(folder: Path | None, label_config: Path | None, source: str | None, target: str | None) -> DataFolder | None:
    """The data folder where its masks are to be replayed; None where its labels are."""
    from tasks import datafolder
    from tasks.schema import parse_label_config

    if folder is None or label_config is None:
        if source is not None or target is not None:
            raise fail("--source and --target are for masks: name a data folder with its --label-config")
        return None
    try:
        schema = parse_label_config(label_config.read_text(encoding="utf-8"))
        if schema.heads and source is None and target is None:
            return None
        if not schema.masks:
            raise fail("--source and --target are for masks: the label config has no BrushLabels or PolygonLabels")
        return datafolder.read(folder, schema)
    except (OSError, ValueError) as error:
        raise fail(str(error)) from error


def _material(
    folder: Path | None,
    label_config: Path | None,
    project: int | None,
    sample: int | None,
    noise: float | None,
    kind: Kind,
) -> Callable[[int], Any]:
    """What makes the material of a seed, from a folder or from a project."""
    from backend.registry import Registry
    from backend.replay.material import from_folder, from_project
    from backend.settings import settings
    from tasks import datafolder
    from tasks.schema import parse_label_config
    from tasks.store import Store

    if (folder is None) == (project is None):
        raise fail("name a data folder with its --label-config, or a project with --project")
    if folder is None:
        if label_config is not None or sample is not None:
            raise fail("--label-config and --sample are for data folders: a project has its own label config and tasks")
        store, registry, size = Store.open(settings().database), Registry(settings().state_dir), settings().image_size
        number = chosen_project(store, project)
        return lambda seed: from_project(store, registry, size, number, noise or 0.0, kind, seed)
    if label_config is None:
        raise fail("name the data folder's label config with --label-config")
    config = label_config.read_text(encoding="utf-8")
    read = datafolder.read(folder, parse_label_config(config))
    read = read if sample is None else read.sample(sample, seed=0)
    return lambda seed: from_folder(read, config, NOISE if noise is None else noise, kind, seed)


def _draw(file: Path, points: Mapping[str, Sequence[Any]]) -> None:
    from backend.replay.curves import summary
    from backend.replay.plot import learning_curves

    file.write_text(learning_curves([summary(name, found) for name, found in points.items()]), encoding="utf-8")


def _print(points: Mapping[str, Sequence[Any]], as_json: bool) -> None:
    from backend.replay.curves import summary
    from backend.replay.recommend import DEFAULT, advantage, applied, recommended

    best = recommended(points)
    table = Table("strategy", "reviewed", "wrong left", "errors found", "AUC", "macro F1", "ECE")
    for name, own in points.items():
        found = summary(name, own)
        if as_json:
            over = advantage(own, points[DEFAULT]) if DEFAULT in points else None
            typer.echo(
                json.dumps(found | {"over_hybrid": over, "recommended": name == best, "settings": applied(name)})
            )
        for place, count in enumerate(found["reviewed"]):
            cells = ("wrong_labels_left", "errors_found", "auc", "macro_f1", "ece")
            values = [found[cell][place] for cell in cells]
            table.add_row(name, str(count), *("-" if value is None else f"{value[0]:.3f}" for value in values))
    if as_json:
        return
    console.print(table)
    if best is not None:
        said = ", ".join(f"{name} {value}" for name, value in applied(best).items())
        why = "no other is better beyond doubt" if best == DEFAULT else "it found more errors than hybrid beyond doubt"
        console.print(f"Recommended: {best} ({said}): {why}.")
