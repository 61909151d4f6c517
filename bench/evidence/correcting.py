"""What correcting labels buys the model: the default loop beside one that keeps its backbones, on images of neither.

Hold-outs of a replay are small. So each version in force answers further images as well, clean ones that are no tasks.
"""

import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.evaluation.metrics import evaluate
from backend.learning.arrays import Float32
from backend.learning.crossfit import ensemble
from backend.learning.decode import decode
from backend.learning.fold_backbones import embed_all, load_backbones
from backend.learning.weights import load_crossfit
from backend.registry import Registry, load_json
from backend.replay.curves import Point, point
from backend.replay.label_studio import PROJECT
from backend.replay.material import Material
from backend.replay.run import Replay
from backend.replay.strategies import STRATEGIES
from backend.settings import Settings
from bench.evidence.replays import BATCH_SHARE, BATCHES, LEARNING, DataSet, kept, material
from demo.phantoms import write_phantoms
from tasks import datafolder
from tasks.codec import encode_labels, to_targets
from tasks.schema import parse_label_config

NAME = "phantoms, 15 % more wrong"
NOISE = 0.15  # of the first control's labels, beside their own wrong ones
SEED = 320  # the first; none of these seeds is among the other replays'
SEEDS = 8
FURTHER, FURTHER_SEED = 1000, 290
FEWER = {"all": 2}  # seeds of what has to be trained anew, and is known to be a ceiling
ARMS: dict[str, dict[str, Any]] = {
    "hybrid": STRATEGIES["hybrid"],
    "hybrid, backbones kept": STRATEGIES["hybrid"] | {"corrected_share": 1.0},
    "random": STRATEGIES["random"],
    "all, backbones kept": {"corrected_share": 1.0},
    "all": {},
}
WHOLE = ("all", "all, backbones kept")
"""Arms that show what there is to gain: all wrong labels of the first control are corrected at once."""


class Further:
    """Images that are no tasks, and what each version of a replay makes of them."""

    def __init__(self, chosen: DataSet, folder: Path) -> None:
        write_phantoms(folder, FURTHER, FURTHER_SEED)
        schema = parse_label_config(chosen.label_config.read_text(encoding="utf-8"))
        rows = datafolder.read(folder, schema).rows
        self.head = schema.heads[0]
        self.pixels: NDArray[np.uint8] = np.stack([decode(folder / row.file, chosen.image_size) for row in rows])
        self.truth = to_targets([self.head], [row.truth for row in rows])[self.head.name]
        self.embedded: dict[str, list[Float32]] = {}

    def figures(self, run: Replay) -> dict[str, float | None]:
        """Those of the version in force, against the truth."""
        project = run.store.project(PROJECT)
        assert project is not None and project.version is not None  # a replay has begun
        registry = Registry(run.settings.state_dir)
        version = registry.version(PROJECT, project.version)
        backbones = load_backbones(registry.backbones(PROJECT, int(load_json(version / "model.json")["backbones"])))
        key = backbones[0].made_from
        if key not in self.embedded:
            self.embedded[key] = embed_all(backbones, self.pixels)
        members = ensemble(load_crossfit(version / "heads.safetensors"), self.embedded[key])
        found: dict[str, float | None] = evaluate(self.head, members[self.head.name].mean(axis=0), self.truth)
        return found


def run(chosen: DataSet, seeds: int, state: Path) -> Iterator[str]:
    """Replay what is not in `state` yet, on the phantoms that `chosen` describes; says what was done."""
    chosen, done = replace(chosen, noise=NOISE), kept(state)
    wanted = {
        seed: [name for name in ARMS if seed - SEED < FEWER.get(name, seeds) and (NAME, seed, name) not in done]
        for seed in range(SEED, SEED + seeds)
    }
    if not any(wanted.values()):
        return
    with tempfile.TemporaryDirectory(prefix="second-look-evidence-") as scratch:
        further = Further(chosen, Path(scratch) / "further")
        for seed, names in wanted.items():
            if names:
                with tempfile.TemporaryDirectory(prefix="second-look-evidence-") as folder:
                    for name, points in _replayed(chosen, seed, names, Path(folder), further):
                        row = {
                            "data": NAME,
                            "seed": seed,
                            "strategy": name,
                            "points": [asdict(said) for said in points],
                        }
                        with state.open("a", encoding="utf-8") as lines:
                            lines.write(json.dumps(row) + "\n")
                        yield f"{NAME}, seed {seed}, {name}: AUC {points[-1].figures['auc']}"


def _replayed(
    chosen: DataSet, seed: int, names: Sequence[str], scratch: Path, further: Further
) -> Iterator[tuple[str, list[Point]]]:
    """Each arm's points, as soon as it is done."""
    made = material(chosen, seed, scratch)
    batch = round(BATCH_SHARE * len(made.truth))
    learning = LEARNING | {"image_size": chosen.image_size, "epochs": chosen.epochs}
    settings = Settings(
        **learning,  # type: ignore[arg-type]
        seed=seed,
        batch_size=-(-batch // 3),
        head_hours=0.0,
        _env_file=None,
    )
    first = Replay(made, settings, scratch / "0")
    first.begin()
    for name in names:
        began = time.monotonic()
        run = first.branch(scratch / "arm", **ARMS[name])
        run.cycle()
        points = [_point(run, 0, began, further)]
        if name in WHOLE:
            wrong = _wrong(made)
            for task in wrong:
                run.label_studio.answer(task, encode_labels(made.schema, made.truth[task - 1]))
            run.cycle()
            points.append(_point(run, len(wrong), began, further))
        else:
            for step in range(1, BATCHES + 1):
                run.answer(batch)
                run.cycle()
                points.append(_point(run, step * batch, began, further))
        yield name, points
        run.store.engine.dispose()
        shutil.rmtree(run.folder)


def _wrong(made: Material) -> list[int]:
    """The tasks whose label on record of the first control is wrong, also those of the hold-out."""
    head = made.schema.heads[0]
    pairs = zip(made.data, made.truth, strict=True)
    return [
        task for task, (data, truth) in enumerate(pairs, 1) if data[head.current or ""] != "|".join(truth[head.name])
    ]


def _point(run: Replay, reviewed: int, began: float, further: Further) -> Point:
    """The figures of a moment, with those of the further images in the hold-out's place."""
    head = run.schema.heads[0]
    said = point(run.settings.seed, head, run.moment(reviewed, time.monotonic() - began))
    return replace(said, figures={**said.figures, **further.figures(run)})
