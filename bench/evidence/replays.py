"""Every data set's replays by seed, each strategy's result kept as a line of JSON, so that a killed run goes on."""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from backend.replay.curves import Point, point
from backend.replay.material import Material, from_folder
from backend.replay.run import replay
from backend.settings import Settings
from demo.phantoms import write_phantoms
from tasks import datafolder
from tasks.schema import parse_label_config

ROOT = Path(__file__).parents[2]
STRATEGIES = ("hybrid", "random", "disagreement", "queue", "entropy", "coverage")
BATCHES = 3  # of 5 % of the images each
BATCH_SHARE = 0.05
FIRST_SEED = 300  # far from those that weights, formulas and sizes were tried on
FEWER = {"entropy": 5, "coverage": 5}  # seeds of the strategies that are far from the best
LEARNING = {"backbone": "resnet10t", "weights": "scratch", "folds": 3, "head_seeds": 1}
HISTOLOGY = (
    "Histology, which is on record as another control, all but names benign or malignant: what the loop finds here"
    " beyond the image alone is what a second control on record can give at best."
)
LESION = "The same images and wrong labels, with nothing else on record: here the loop's ranking is the image's."


@dataclass(frozen=True)
class DataSet:
    """Where images and labels come from; noise: the share of the first control's labels to exchange.

    folder: None for phantoms, which are made anew for each seed, wrong labels and all. images: at most so many, drawn
    by whole patients, others for each seed. image_size, epochs: of the learning. note: what a reader has to know.
    strategies: of STRATEGIES.
    """

    name: str
    label_config: Path
    folder: Path | None
    images: int | None
    noise: float
    image_size: int
    epochs: int
    note: str = ""
    strategies: tuple[str, ...] = STRATEGIES


def data_sets(data: Path) -> list[DataSet]:
    """Phantoms and real images; data: the folder that holds busbra and ddti."""
    examples = ROOT / "docs" / "examples"
    lesion = Path(__file__).parent / "busbra-lesion.xml"
    return [
        DataSet("phantoms", ROOT / "label_config.xml", None, 1000, 0.0, 64, 8),
        DataSet("busbra", examples / "busbra.xml", data / "busbra", 700, 0.05, 48, 5, HISTOLOGY),
        DataSet("busbra, image alone", lesion, data / "busbra", 700, 0.05, 48, 5, LESION, STRATEGIES[:3]),
        DataSet("ddti", examples / "ddti.xml", data / "ddti", None, 0.05, 48, 5),
    ]


def material(chosen: DataSet, seed: int, scratch: Path) -> Material:
    """What one seed's replays work on. Raises DataFolderError where the folder is absent."""
    config = chosen.label_config.read_text(encoding="utf-8")
    folder = chosen.folder
    if folder is None:
        folder = scratch / "phantoms"
        write_phantoms(folder, chosen.images or 1000, seed)
    read = datafolder.read(folder, parse_label_config(config))
    if chosen.images is not None:
        read = read.sample(chosen.images, seed)
    return from_folder(read, config, chosen.noise, "uniform", seed)


def kept(state: Path) -> dict[tuple[str, int, str], list[Point]]:
    """The results so far, by data set, seed and strategy; a line that a kill cut off is left out."""
    found = {}
    if state.exists():
        for line in state.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            points = [Point(**entry) for entry in row["points"]]
            found[row["data"], row["seed"], row["strategy"]] = points
    return found


def run(sets: list[DataSet], seeds: int, state: Path) -> Iterator[str]:
    """Replay what is not in `state` yet, all data sets of a seed before the next; says what was done.

    Raises what a replay raises.
    """
    state.parent.mkdir(parents=True, exist_ok=True)
    done = kept(state)
    if state.exists():
        with state.open("a", encoding="utf-8") as lines:
            lines.write("\n")  # after a line that was cut off
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        for chosen in sets:
            wanted = [name for name in chosen.strategies if seed - FIRST_SEED < FEWER.get(name, seeds)]
            missing = [name for name in wanted if (chosen.name, seed, name) not in done]
            if (chosen.folder is not None and not chosen.folder.is_dir()) or not missing:
                continue
            with tempfile.TemporaryDirectory(prefix="second-look-evidence-") as scratch:
                for name, points in _replayed(chosen, seed, missing, Path(scratch)):
                    row = {"data": chosen.name, "seed": seed, "strategy": name, "points": points}
                    with state.open("a", encoding="utf-8") as lines:
                        lines.write(json.dumps(row) + "\n")
                    found = points[-1]["figures"]["errors_found"]
                    yield f"{chosen.name}, seed {seed}, {name}: {found} of the wrong labels found"


def _replayed(
    chosen: DataSet, seed: int, strategies: list[str], scratch: Path
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Each strategy's points, as soon as it is done."""
    made = material(chosen, seed, scratch)
    sizes = {"image_size": chosen.image_size, "epochs": chosen.epochs}
    settings = Settings(seed=seed, **LEARNING, **sizes, _env_file=None)  # type: ignore[arg-type]
    batch = round(BATCH_SHARE * len(made.truth))
    current, points = "", list[dict[str, Any]]()
    for name, moment in replay(made, settings, strategies, BATCHES * batch, batch, scratch / "state"):
        if name != current and points:
            yield current, points
            points = []
        current = name
        points.append(asdict(point(seed, made.schema.heads[0], moment)))
    yield current, points
