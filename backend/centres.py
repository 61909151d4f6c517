"""The calibration of a version per centre: judged when it is made, kept in its folder, an alarm where it breaks."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import select

from backend.evaluation.centres import calibration
from backend.learning.crossfit import CLEAN_ENOUGH
from backend.learning.folds import HOLDOUT
from backend.registry import load_json, save_json
from backend.scored import Scored
from backend.snapshot import Snapshot
from tasks.schema import Head
from tasks.store import Store
from tasks.tables import Task

FILE = "centres.json"


def look(store: Store, project_id: int, folder: Path, heads: Sequence[Head], taken: Snapshot, scored: Scored) -> None:
    """Keep how far confidence in the heaviest of the heads that were learnt holds at each centre.

    By the labels that people gave to tasks drawn at random (control arm and hold-out, the former judged out of fold)
    once there are CLEAN_ENOUGH of them, else by all labels of the hold-out.
    """
    head, held = max(heads, key=lambda head: head.weight), taken.folds == HOLDOUT
    with store.begin() as session:
        query = select(Task.id, Task.site).where(Task.project_id == project_id, Task.site.is_not(None))
        sites = {row.id: row.site for row in session.execute(query)}
    checked = taken.adjudicated[head.name] & (taken.drawn | held)
    by_people = int(checked.sum()) >= CLEAN_ENOUGH
    rows = np.flatnonzero((checked if by_people else held) & np.isin(taken.ids, list(sites)))
    found = calibration(
        head,
        scored.probabilities[head.name][rows],
        taken.targets[head.name][rows],
        [str(sites[task]) for task in taken.ids[rows].tolist()],
        taken.groups[rows].tolist(),
    )
    about = {"control": head.name, "labels": "checked" if by_people else "hold-out"}
    save_json(folder / FILE, about | {"centres": [asdict(row) for row in found]})


def of_version(folder: Path) -> dict[str, Any] | None:
    """What `look` kept: control, labels (checked or hold-out) and centres; None where nothing is."""
    return load_json(folder / FILE) if (folder / FILE).exists() else None


def alarms(folder: Path) -> list[str]:
    """A sentence for each centre at which the version's confidence breaks."""
    kept = of_version(folder)
    if kept is None:
        return []
    return [
        f"at {row['site']} the confidence in {kept['control']} does not hold: {100 * row['confidence']:.0f} % said,"
        f" {100 * row['right']:.0f} % right on {row['n']} {kept['labels']} labels; do not rely on it there"
        for row in kept["centres"]
        if row["broken"]
    ]
