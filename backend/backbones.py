"""Which backbones a cycle uses: those of an earlier version while they still fit, else new ones."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from backend.learning.arrays import Pixels
from backend.learning.backbone import create, save
from backend.learning.config import LearningConfig
from backend.learning.fold_backbones import train_backbones
from backend.registry import Registry, load_json, save_json
from backend.snapshot import Snapshot
from tasks.schema import Head

REFRESH_SHARE = 0.25  # new or changed labels, of those that backbones were trained on, from which they are trained anew


def choose(
    registry: Registry,
    project_id: int,
    number: int,
    taken: Snapshot,
    heads: Sequence[Head],
    config: LearningConfig,
) -> int:
    """The version whose backbones serve version `number`: an earlier one's, or its own, still to be trained.

    `full` trains anew each time. `frozen` goes on with the newest backbones made for the same settings and heads,
    until REFRESH_SHARE of the labels they were trained on are new or different; one that saw no label stays.
    """
    if config.mode == "full":
        return number
    for made in sorted(registry.backbones(project_id, 0).parent.glob("*/made.json"), key=_number, reverse=True):
        if load_json(made) != _made_for(heads, config):
            continue
        if (made.parent / "backbone-1.safetensors").exists():
            before = Snapshot.load(made.parent / "snapshot.npz")
            if changed_share(before, taken, heads) >= REFRESH_SHARE:
                return number
        return _number(made)
    return number


def make(
    folder: Path,
    taken: Snapshot,
    heads: Sequence[Head],
    config: LearningConfig,
    pixels: Pixels,
    progress: Callable[[int, int], None],
) -> None:
    """Make the backbones of a version in `folder`, or go on with making them; nothing where they are complete.

    Without any label, and without pretrained weights, the one backbone is random: it serves to spread the first
    tasks over what the images look like, and nothing else.
    """
    done = folder / "made.json"
    if done.exists():
        return
    if heads or config.weights != "scratch":
        targets = {head.name: taken.targets[head.name] for head in heads}
        train_backbones(pixels, targets, taken.folds, heads, config, folder, progress)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        save(create(config, config.seed), folder / "backbone-0.safetensors")
    taken.save(folder / "snapshot.npz")
    save_json(done, _made_for(heads, config))


def changed_share(before: Snapshot, now: Snapshot, heads: Sequence[Head]) -> float:
    """New, changed or withdrawn labels of training tasks, as a share of the tasks that were labelled `before`."""
    old, new = _labels(before, heads), _labels(now, heads)
    changed = sum(old.get(task) != new.get(task) for task in old.keys() | new.keys())
    return changed / max(len(old), 1)


def _labels(taken: Snapshot, heads: Sequence[Head]) -> dict[int, bytes]:
    joined = np.concatenate([taken.targets[head.name] for head in heads], axis=1)
    return {int(taken.ids[row]): joined[row].tobytes() for row in np.flatnonzero(taken.labelled)}


def _made_for(heads: Sequence[Head], config: LearningConfig) -> dict[str, Any]:
    return {
        "config": asdict(config),
        "heads": [[head.name, head.kind, list(head.classes), round(head.weight, 6)] for head in heads],
    }


def _number(made: Path) -> int:
    return int(made.parent.name)
