"""What only the demo knows: how good each version is against the truth, and which labels on record were corrected."""

from pathlib import Path
from typing import Any

from sqlalchemy import select

from backend.evaluation.metrics import evaluate
from backend.learning.folds import HOLDOUT
from backend.registry import Registry
from backend.scored import Scored
from backend.snapshot import Snapshot
from tasks.codec import to_targets
from tasks.datafolder import DataFolder
from tasks.labels import by_task, settle
from tasks.schema import Schema
from tasks.store import Store
from tasks.tables import Annotation, Task, Version


def metrics_by_version(
    store: Store, state: Path, project: int, schema: Schema, read: DataFolder
) -> list[dict[str, Any]]:
    """Per version: number, seconds of its training, labels, and the hold-out's metrics per head on the true labels."""
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
                },
            }
        )
    return found


def corrected(store: Store, project: int) -> int:
    """Tasks whose settled labels differ from those on record, in any control."""
    with store.begin() as session:
        said = by_task(session.scalars(select(Annotation).where(Annotation.project_id == project)))
        tasks = session.scalars(select(Task).where(Task.project_id == project)).all()
    settled = [settle(said.get(task.id, []), task.current) for task in tasks]
    return sum(any(row.labels.get(head, known) != known for head, known in row.current.items()) for row in settled)
