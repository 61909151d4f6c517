"""What only the demo knows: how good each version is against the truth, and which labels on record were corrected."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from backend import regions
from backend.evaluation.metrics import evaluate
from backend.learning.folds import HOLDOUT
from backend.registry import Registry
from backend.scored import Scored
from backend.segmentation.dice import dice, mean_dice
from backend.snapshot import Snapshot
from demo.correction import known_masks
from tasks.codec import to_targets
from tasks.datafolder import DataFolder
from tasks.labels import by_task, settle
from tasks.mask_codec import decode_masks
from tasks.schema import Schema
from tasks.store import Store
from tasks.tables import Annotation, Task, Version


def metrics_by_version(
    store: Store, state: Path, project: int, schema: Schema, read: DataFolder
) -> list[dict[str, Any]]:
    """Per version: number, seconds of its training, labels, and the hold-out's metrics per head on the true labels.

    Of a mask head that was learnt: the mean Dice, over all and by site.
    """
    with store.begin() as session:
        rows = session.execute(select(Task.id, Task.data).where(Task.project_id == project)).all()
        versions = session.scalars(select(Version).where(Version.project_id == project).order_by(Version.number)).all()
    file_of = {row.id: row.data["file"] for row in rows}
    registry, known, found = Registry(state), read.truth, []
    for version in versions:
        folder = registry.version(project, version.number)
        scored, taken = Scored.load(folder / "predictions.npz"), Snapshot.load(folder / "snapshot.npz")
        held = taken.folds == HOLDOUT
        truth = to_targets(schema.heads, [known.get(file_of[int(task)], {}) for task in scored.ids[held]])
        found.append(
            {
                "version": version.number,
                "seconds": round(version.seconds, 1),
                "labels": version.labels,
                "holdout": {
                    head.name: evaluate(head, scored.probabilities[head.name][held], truth[head.name])
                    for head in schema.heads
                    if head.name in scored.probabilities
                }
                | (_dice(folder, taken, held, file_of, schema, read) if scored.drawn else {}),
            }
        )
    return found


def _dice(
    folder: Path,
    taken: Snapshot,
    held: NDArray[np.bool_],
    file_of: Mapping[int, str],
    schema: Schema,
    read: DataFolder,
) -> dict[str, dict[str, Any]]:
    """Per mask head n, dice and sites: over images of the hold-out, of each the mean over its classes."""
    truth = known_masks(read)
    site = {row.file: row.cells.get(schema.site_field or "", "") for row in read.rows}
    found: dict[str, list[tuple[str, float]]] = {head.name: [] for head in schema.masks}
    for task, pixels in zip(taken.ids[held].tolist(), taken.pixels[held].tolist(), strict=True):
        drawn, known = regions.of_task(folder, task, pixels, schema), truth(file_of[task])
        if drawn is None:
            continue
        for name, masks in known.items():
            said = decode_masks(schema, drawn, *masks.shape[1:])
            each = mean_dice(dice(said.masks[name], masks)[:, None])
            found[name].append((site[file_of[task]], float(each[0])))
    return {
        name: {
            "n": len(rows),
            "dice": _mean([value for _, value in rows]),
            "sites": {which: _mean([value for at, value in rows if at == which]) for which in sorted(dict(rows))},
        }
        for name, rows in found.items()
    }


def _mean(values: list[float]) -> float | None:
    """Of those that are numbers: where neither the model nor the truth draws anything, there is nothing to measure."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else None


def corrected(store: Store, project: int) -> int:
    """Tasks whose settled labels differ from those on record, in any control."""
    with store.begin() as session:
        said = by_task(session.scalars(select(Annotation).where(Annotation.project_id == project)))
        tasks = session.scalars(select(Task).where(Task.project_id == project)).all()
    settled = [settle(said.get(task.id, []), task.current) for task in tasks]
    return sum(any(row.labels.get(head, known) != known for head, known in row.current.items()) for row in settled)
