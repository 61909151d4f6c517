"""Which backbones a cycle uses: those of an earlier version while they still fit, else new ones."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.learning.arrays import Pixels
from backend.learning.backbone import create, save
from backend.learning.config import LearningConfig
from backend.learning.fold_backbones import train_backbones
from backend.learning.folds import HOLDOUT
from backend.registry import Registry, load_json, save_json
from backend.snapshot import Snapshot
from backend.survivors import columns
from tasks.schema import Head

REFRESH_SHARE = 0.25  # new or changed labels, of those that backbones were trained on, from which they are trained anew
SHIFTED = 0.5  # share of the loss that lies on other heads than it did, from which they are trained anew


def choose(
    registry: Registry,
    project_id: int,
    number: int,
    taken: Snapshot,
    heads: Sequence[Head],
    config: LearningConfig,
    refused: Collection[int] = (),
) -> int:
    """The version whose backbones serve version `number`: an earlier one's, or its own, still to be trained.

    `full` trains anew each time. `frozen` goes on with the newest backbones made by the same settings that still fit
    the heads, the folds and the labels (see `_fits`), so that a head of small weight that comes, goes or changes costs
    nothing but its own fit. One that saw no label always fits; a random one only while there is nothing to learn.
    refused: backbones that are left out, since only models that were refused were built on them.
    """
    if config.mode == "full":
        return number
    for made in sorted(registry.backbones(project_id, 0).parent.glob("*/made.json"), key=_number, reverse=True):
        if _number(made) in refused:
            continue
        about = load_json(made)
        if about["config"] == _making(config) and _fits(made.parent, about["heads"], taken, heads, config):
            return _number(made)
    return number


def _fits(
    folder: Path, made_for: Sequence[Sequence[Any]], taken: Snapshot, heads: Sequence[Head], config: LearningConfig
) -> bool:
    """Whether backbones serve these heads and tasks."""
    if config.weights != "scratch" or not heads:
        return True
    if shifted(made_for, heads) >= SHIFTED:
        return False
    before = Snapshot.load(folder / "snapshot.npz")
    if moved(before, taken):
        return False
    order = columns({name: (kind, tuple(classes)) for name, kind, classes, _ in made_for}, heads)
    return (
        changed_share(before, taken, order) < REFRESH_SHARE
        and corrected_share(before, taken, order, heads) < config.corrected_share
    )


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
        weights = {head.name: taken.weights[head.name] for head in heads}
        train_backbones(pixels, targets, taken.folds, heads, config, folder, progress, weights)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        save(create(config, config.seed), folder / "backbone-0.safetensors")
    taken.save(folder / "snapshot.npz")
    save_json(done, _made_for(heads, config))


def shifted(made_for: Sequence[Sequence[Any]], heads: Sequence[Head]) -> float:
    """The share of the loss, in [0, 1], that lies on other heads or classes than it did: the total variation distance.

    made_for: [name, kind, classes, weight] of each head before.
    """
    before = _shares({(name, kind, frozenset(classes)): weight for name, kind, classes, weight in made_for})
    now = _shares({(head.name, head.kind, frozenset(head.classes)): head.weight for head in heads})
    if not before or not now:
        return float(before != now)
    return sum(abs(before.get(head, 0.0) - now.get(head, 0.0)) for head in before.keys() | now.keys()) / 2


def _shares(weights: dict[Any, float]) -> dict[Any, float]:
    total = sum(weights.values())
    return {head: weight / total if total else 1 / len(weights) for head, weight in weights.items()}


def moved(before: Snapshot, now: Snapshot) -> bool:
    """Whether a task or group that was trained on lies in another fold now: its backbone would have seen it.

    It happens when a task is given to another patient, or when deleted images are imported again.
    """
    rows = np.flatnonzero(before.labelled).tolist()
    fold_of: dict[Any, int] = {}
    for row in rows:
        fold_of[str(before.groups[row])] = int(before.folds[row])
        fold_of[int(before.ids[row]), str(before.pixels[row])] = int(before.folds[row])
    return any(
        fold_of.get(key, fold) != fold
        for task, pixels, group, fold in zip(
            now.ids.tolist(), now.pixels.tolist(), now.groups.tolist(), now.folds.tolist(), strict=True
        )
        for key in (group, (task, pixels))
    )


def changed_share(before: Snapshot, now: Snapshot, order: Mapping[str, NDArray[np.intp]]) -> float:
    """New, changed or withdrawn labels of training tasks, as a share of the tasks that were labelled `before`.

    order: the heads to compare, with the columns `before` in which their classes of now lay.
    """
    old = _labels(before, [before.targets[head][:, where] for head, where in order.items()])
    new = _labels(now, [now.targets[head] for head in order])
    changed = sum(old.get(task) != new.get(task) for task in old.keys() | new.keys())
    return changed / max(len(old), 1)


def corrected_share(
    before: Snapshot, now: Snapshot, order: Mapping[str, NDArray[np.intp]], heads: Sequence[Head]
) -> float:
    """Labels of training tasks that say something else than `before`, as a share of those there were, by the loss.

    A backbone keeps what it was told of a task, so that new heads on old embeddings make little of a correction.
    order: as in `changed_share`; heads: with their weights.
    """
    _, old, new = np.intersect1d(before.ids, now.ids, return_indices=True)
    weights = {head.name: head.weight for head in heads if head.name in order}
    found = 0.0
    for name, weight in weights.items():
        said, says = before.targets[name][:, order[name]], now.targets[name]
        known = ~np.isnan(said).any(axis=1) & (before.folds != HOLDOUT)
        both = known[old] & ~np.isnan(says[new]).any(axis=1)
        found += weight * float((both & (said[old] != says[new]).any(axis=1)).sum()) / max(int(known.sum()), 1)
    return found / (sum(weights.values()) or 1.0)


def _labels(taken: Snapshot, targets: list[NDArray[np.float32]]) -> dict[int, bytes]:
    joined = np.ascontiguousarray(np.concatenate(targets, axis=1))
    labelled = ~np.isnan(joined).all(axis=1) & (taken.folds != HOLDOUT)
    return {int(taken.ids[row]): joined[row].tobytes() for row in np.flatnonzero(labelled)}


def _made_for(heads: Sequence[Head], config: LearningConfig) -> dict[str, Any]:
    return {
        "config": _making(config),
        "heads": [[head.name, head.kind, list(head.classes), round(head.weight, 6)] for head in heads],
    }


def _making(config: LearningConfig) -> dict[str, Any]:
    """What decides how backbones are made; when they are made anew says nothing of that."""
    return {name: value for name, value in asdict(config).items() if name != "corrected_share"}


def _number(made: Path) -> int:
    return int(made.parent.name)
