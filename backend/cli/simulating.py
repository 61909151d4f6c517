"""`simulate`: the loop replayed on labels that are known, to see what each strategy would have saved."""

import json
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from backend.cli.terminal import Json, bar, console, fail

STRATEGIES = "hybrid,entropy,margin,bald,disagreement,coverage,random"


def simulate(
    folder: Annotated[Path, typer.Argument(help="A data folder: labels.csv beside its images")],
    label_config: Annotated[Path, typer.Option(help="Its label config")],
    strategies: Annotated[str, typer.Option(help="Separated by commas")] = STRATEGIES,
    noise: Annotated[float, typer.Option(help="Share of the first control's labels to exchange")] = 0.05,
    noise_kind: Annotated[Literal["uniform", "confusable"], typer.Option(help="For which others")] = "uniform",
    budget: Annotated[int, typer.Option(min=0, help="Tasks to review")] = 150,
    batch: Annotated[int, typer.Option(min=1, help="Reviews between two trainings")] = 25,
    seeds: Annotated[int, typer.Option(min=1, help="Replays of each strategy")] = 1,
    sample: Annotated[int | None, typer.Option(min=20, help="Use only so many images, by whole patients")] = None,
    as_json: Json = False,
) -> None:
    """Replay the loop with an oracle in the annotators' place. --json prints one object a line for each strategy."""
    from backend.replay.curves import point, summary
    from backend.replay.material import MaterialError, from_folder
    from backend.replay.run import replay
    from backend.replay.strategies import STRATEGIES as KNOWN
    from backend.settings import settings
    from tasks import datafolder
    from tasks.schema import SchemaError, parse_label_config

    chosen = [name.strip() for name in strategies.split(",") if name.strip()]
    if unknown := [name for name in chosen if name not in KNOWN]:
        raise fail(f"there is no strategy {', '.join(map(repr, unknown))}; there are {', '.join(KNOWN)}")
    points: dict[str, list[Any]] = {name: [] for name in chosen}
    try:
        config = label_config.read_text(encoding="utf-8")
        schema = parse_label_config(config)
        read = datafolder.read(folder, schema)
        read = read if sample is None else read.sample(sample, seed=0)
        with bar() as progress:
            task = progress.add_task("replaying", total=seeds * len(chosen) * (1 + -(-budget // batch)))
            for seed in range(seeds):
                material = from_folder(read, config, noise, noise_kind, seed)
                own = settings().model_copy(update={"seed": seed})
                with tempfile.TemporaryDirectory(prefix="second-look-replay-") as state:
                    for name, moment in replay(material, own, chosen, budget, batch, Path(state)):
                        points[name].append(point(seed, schema.heads[0], moment))
                        progress.advance(task)
    except (OSError, SchemaError, datafolder.DataFolderError, MaterialError, ValueError) as error:
        raise fail(str(error)) from error
    table = Table("strategy", "reviewed", "wrong left", "errors found", "AUC", "macro F1", "ECE")
    for name in chosen:
        found = summary(name, points[name])
        if as_json:
            typer.echo(json.dumps(found))
        for place, count in enumerate(found["reviewed"]):
            cells = ("wrong_labels_left", "errors_found", "auc", "macro_f1", "ece")
            values = [found[cell][place] for cell in cells]
            table.add_row(name, str(count), *("-" if value is None else f"{value[0]:.3f}" for value in values))
    if not as_json:
        console.print(table)
