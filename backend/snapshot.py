"""What a cycle learns from: the store's tasks and labels at one moment, as arrays that a resumed cycle finds again."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from backend.learning.folds import HOLDOUT
from backend.registry import Array, load_arrays, save_arrays
from tasks.codec import to_targets
from tasks.labels import Settled, by_task, settle
from tasks.queue import answered_at_random
from tasks.schema import Head, Labels, Schema, parse_label_config
from tasks.store import Store
from tasks.tables import Annotation, Task

NO_FOLD = -2  # of a task that was given none yet
PARTS = ("targets", "recorded", "adjudicated", "weights")  # arrays per head
MIN_LABELS = 20  # labelled training tasks below which a head is not learnt yet


@dataclass(frozen=True)
class Snapshot:
    """N tasks with readable images, by task number.

    ids: int64 (N,). pixels: (N,) sha256 under which the image's pixels are cached. folds: int8 (N,), -1 hold-out.
    targets: per head float32 (N, C), labels to learn from (adjudicated over current), NaN rows without one.
    recorded: the same of the labels on record. adjudicated: per head bool (N,). weights: per head float32 (N,), how
    far people stand behind what they said (`Settled.weights`), 1 for labels on record. groups: (N,). drawn: bool (N,),
    tasks that a person annotated as the queue drew them at random.
    annotations, updated: numbers and times of the annotations that this snapshot contains. label_config: the XML that
    says what the labels are; a resumed cycle goes on with it, whatever the project has by then.
    """

    ids: NDArray[np.int64]
    pixels: NDArray[np.str_]
    folds: NDArray[np.int8]
    groups: NDArray[np.str_]
    targets: dict[str, NDArray[np.float32]]
    recorded: dict[str, NDArray[np.float32]]
    adjudicated: dict[str, NDArray[np.bool_]]
    weights: dict[str, NDArray[np.float32]]
    drawn: NDArray[np.bool_]
    annotations: NDArray[np.int64]
    updated: NDArray[np.str_]
    label_config: str

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """bool (N,): tasks outside the hold-out that carry a label of any head."""
        has: NDArray[np.bool_] = np.zeros(len(self.ids), dtype=bool)
        for target in self.targets.values():
            has |= ~np.isnan(target).any(axis=1)
        has &= self.folds != HOLDOUT
        return has

    def learnable(self, heads: tuple[Head, ...]) -> tuple[Head, ...]:
        """The heads with enough labels to learn: MIN_LABELS of them, two answers whatever fold is left out."""
        rows = self.folds != HOLDOUT
        return tuple(head for head in heads if learnable(self.targets[head.name][rows], self.folds[rows]))

    def of(self, rows: NDArray[np.intp]) -> "Snapshot":
        """Only these tasks."""
        return replace(
            self,
            ids=self.ids[rows],
            pixels=self.pixels[rows],
            folds=self.folds[rows],
            groups=self.groups[rows],
            targets={head: target[rows] for head, target in self.targets.items()},
            recorded={head: target[rows] for head, target in self.recorded.items()},
            adjudicated={head: given[rows] for head, given in self.adjudicated.items()},
            weights={head: counts[rows] for head, counts in self.weights.items()},
            drawn=self.drawn[rows],
        )

    def learnt_from(self, head: Head) -> str:
        """sha256 (hex) over all that the weights of one head are fitted to, whatever the order of its classes."""
        target = self.targets[head.name]
        rows = np.flatnonzero(~np.isnan(target).any(axis=1) & (self.folds != HOLDOUT))
        order = np.argsort(np.array(head.classes))
        digest = hashlib.sha256("\n".join([*self.pixels[rows], *self.groups[rows]]).encode())
        for array in (self.ids, self.folds, self.clean(head), self.weights[head.name], target[:, order]):
            digest.update(np.ascontiguousarray(array[rows]).tobytes())
        return digest.hexdigest()

    def clean(self, head: Head) -> NDArray[np.bool_]:
        """bool (N,): labels of a head that a person checked on a task drawn at random.

        Only these tell how sure the model may be: of those picked by suspicion, more are wrong than elsewhere.
        """
        return self.adjudicated[head.name] & self.drawn

    def fingerprint(self) -> str:
        """sha256 (hex) over what is learnt from: images, folds, labels and their weights."""
        digest = hashlib.sha256(self.ids.tobytes() + self.pixels.tobytes() + self.folds.tobytes())
        for head in sorted(self.targets):
            digest.update(head.encode() + self.targets[head].tobytes() + self.weights[head].tobytes())
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        """Write it as one file."""
        names = ("ids", "pixels", "folds", "groups", "drawn", "annotations", "updated")
        flat = {name: getattr(self, name) for name in names}
        flat["label_config"] = np.array(self.label_config)
        for part in PARTS:
            flat |= {f"{part}:{head}": array for head, array in getattr(self, part).items()}
        save_arrays(path, flat)

    @classmethod
    def load(cls, path: Path) -> "Snapshot":
        """Read what save wrote."""
        parts: dict[str, dict[str, Array]] = {part: {} for part in PARTS}
        plain: dict[str, Any] = {}
        for name, array in load_arrays(path).items():
            part, _, head = name.partition(":")
            if head:
                parts[part][head] = array
            else:
                plain[name] = array
        plain["label_config"] = str(plain["label_config"])
        if not parts["weights"]:  # written before labels had any
            parts["weights"] = {head: np.ones(len(target), np.float32) for head, target in parts["targets"].items()}
        return cls(**plain, **cast(Any, parts))


def learnable(target: NDArray[np.float32], folds: NDArray[np.int8]) -> bool:
    """Whether a head can be learnt from training rows (N, C), NaN without a label, in these folds (N,).

    What was fitted without a fold, and saw one answer only, would doubt every other answer in that fold.
    """
    known = ~np.isnan(target).any(axis=1)
    given, where = target[known], folds[known]
    return len(given) >= MIN_LABELS and all(
        len(np.unique(given[where != fold], axis=0)) > 1 for fold in np.unique(where)
    )


def take(store: Store, label_config: str, project_id: int, *, unread: bool = False) -> Snapshot:
    """Read the project's tasks and settle their labels, as far as this label config knows them.

    unread: also tasks whose image was not read yet, with "" for its pixels and NO_FOLD where they have none.
    """
    schema = parse_label_config(label_config)
    query = select(Task).where(Task.project_id == project_id, Task.deleted_at.is_(None)).order_by(Task.id)
    if not unread:
        query = query.where(Task.pixels.is_not(None), Task.fold.is_not(None))
    with store.begin() as session:
        tasks = session.scalars(query).all()
        annotations = session.scalars(select(Annotation).where(Annotation.project_id == project_id)).all()
        drawn = set(session.scalars(answered_at_random(project_id)))
    said = by_task(annotations)
    settled = [settle(said.get(task.id, []), task.current) for task in tasks]
    return Snapshot(
        ids=np.array([task.id for task in tasks], dtype=np.int64),
        pixels=np.array([task.pixels or "" for task in tasks], dtype=np.str_),
        folds=np.array([NO_FOLD if task.fold is None else task.fold for task in tasks], dtype=np.int8),
        groups=np.array([task.group for task in tasks], dtype=np.str_),
        targets=to_targets(schema.heads, [_known(row.labels, schema) for row in settled]),
        recorded=to_targets(schema.heads, [_known(row.current, schema) for row in settled]),
        adjudicated=_adjudicated(schema.heads, settled),
        weights=_weights(schema.heads, settled),
        drawn=np.array([task.id in drawn for task in tasks], dtype=bool),
        annotations=np.array([row.id for row in annotations], dtype=np.int64),
        updated=np.array([row.updated_at for row in annotations], dtype=np.str_),
        label_config=label_config,
    )


def _known(labels: Mapping[str, tuple[str, ...]], schema: Schema) -> Labels:
    """Only what the present label config knows: older annotations may name heads or classes that are gone."""
    classes = {head.name: set(head.classes) for head in schema.heads}
    return {head: tuple(names) for head, names in labels.items() if head in classes and set(names) <= classes[head]}


def _adjudicated(heads: tuple[Head, ...], settled: list[Settled]) -> dict[str, NDArray[np.bool_]]:
    return {head.name: np.array([head.name in row.adjudicated for row in settled], dtype=bool) for head in heads}


def _weights(heads: tuple[Head, ...], settled: list[Settled]) -> dict[str, NDArray[np.float32]]:
    return {
        head.name: np.array([row.weights.get(head.name, 1.0) for row in settled], dtype=np.float32) for head in heads
    }
