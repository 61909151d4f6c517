"""What is marked in the images at one moment, as arrays on disk that a resumed cycle finds again."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from backend.learning.folds import HOLDOUT
from backend.registry import Registry, load_json, save_array, save_json
from backend.segmentation.crops import Examples
from backend.snapshot import Snapshot
from tasks import marks
from tasks.labels import by_task, standing
from tasks.schema import Schema
from tasks.store import Store
from tasks.tables import Annotation

Bytes = NDArray[np.uint8]
Rows = NDArray[np.intp]

MIN_MARKED = 5  # marked training tasks below which masks are not learnt yet


@dataclass(frozen=True)
class Marked:
    """What is marked in the N tasks of a Snapshot.

    painted: (N,) digests under which masks and what is reviewed of them lie (`Registry.painted`), "" where nothing is
    marked. people: bool (N,), where a person marked it, and not only a record from before. reviewed: float32 (N,), the
    share of the pixels that is learnt from. problems: by task, a sentence for each region that could not be read.
    """

    painted: NDArray[np.str_]
    people: NDArray[np.bool_]
    reviewed: NDArray[np.float32]
    problems: dict[int, list[str]]

    @property
    def rows(self) -> Rows:
        """The tasks in which anything is marked."""
        return np.flatnonzero(self.painted != "")

    def trained(self, folds: NDArray[np.int8]) -> Rows:
        """Those of them outside the hold-out."""
        return np.flatnonzero((self.painted != "") & (folds != HOLDOUT))

    def learnable(self, folds: NDArray[np.int8]) -> bool:
        """Whether there are enough, whatever fold is left out."""
        rows = self.trained(folds)
        return len(rows) >= MIN_MARKED and len(np.unique(folds[rows])) > 1

    def fingerprint(self, taken: Snapshot) -> str:
        """sha256 (hex) over all that masks are learnt from."""
        rows = self.trained(taken.folds)
        parts = [taken.pixels[rows].tolist(), self.painted[rows].tolist(), taken.folds[rows].tolist()]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def examples(self, registry: Registry, taken: Snapshot, rows: Rows) -> Examples:
        """These tasks as the U-Nets learn from them, mapped from their files."""
        painted = [registry.painted(str(digest)) for digest in self.painted[rows]]
        return Examples(
            Mapped([registry.whole(str(digest)) for digest in taken.pixels[rows]], slice(None)),
            Mapped(painted, slice(None, -1)),
            Mapped(painted, -1),
        )

    def save(self, path: Path) -> None:
        """Write it as one file."""
        arrays = {name: getattr(self, name).tolist() for name in ("painted", "people", "reviewed")}
        save_json(path, arrays | {"problems": self.problems})

    @classmethod
    def load(cls, path: Path) -> "Marked":
        """Read what save wrote."""
        said = load_json(path)
        problems = {int(task): sentences for task, sentences in said["problems"].items()}
        return cls(
            np.array(said["painted"], dtype=np.str_),
            np.array(said["people"], dtype=bool),
            np.array(said["reviewed"], dtype=np.float32),
            problems,
        )


class Mapped:
    """Arrays in files, of any sizes, of which only what is looked at is read."""

    def __init__(self, paths: Sequence[Path], part: slice | int) -> None:
        self._paths, self._part = paths, part

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, row: int, /) -> Bytes:
        found: Bytes = np.load(self._paths[row], mmap_mode="r")[self._part]
        return found


def take(store: Store, registry: Registry, schema: Schema, taken: Snapshot, project_id: int) -> Marked:
    """Paint the regions that hold on each task of a snapshot, as far as this label config knows them.

    What was painted before is found again. A region that cannot be read costs its own annotation, and is told.
    """
    with store.begin() as session:
        query = select(Annotation).where(Annotation.project_id == project_id, Annotation.deleted_at.is_(None))
        said = by_task(session.scalars(query))
    painted, people = [""] * len(taken.ids), np.zeros(len(taken.ids), dtype=bool)
    reviewed = np.zeros(len(taken.ids), dtype=np.float32)
    problems: dict[int, list[str]] = {}
    for row, task in enumerate(taken.ids.tolist()):
        annotations = said.get(task, [])
        regions = marks.digest(schema, annotations)
        if not regions:
            continue
        height, width = whole_size(registry, str(taken.pixels[row]))
        content = json.dumps([regions, height, width, marks.planes(schema)])
        digest = hashlib.sha256(content.encode()).hexdigest()
        about = registry.painted(digest).with_suffix(".json")
        if not about.exists():
            found = marks.paint(schema, annotations, height, width)
            save_array(registry.painted(digest), np.concatenate([found.masks, found.reviewed[None]]))
            save_json(about, {"problems": list(found.problems), "reviewed": float(found.reviewed.mean())})
        told = load_json(about)
        if told["problems"]:
            problems[task] = told["problems"]
        if told["reviewed"]:
            painted[row], reviewed[row] = digest, told["reviewed"]
            people[row] = bool(marks.digest(schema, standing(annotations).people))
    return Marked(np.array(painted, dtype=np.str_), people, reviewed, problems)


def whole_size(registry: Registry, pixels: str) -> tuple[int, int]:
    """Height and width of an image that is kept at its own size."""
    height, width, _ = np.load(registry.whole(pixels), mmap_mode="r").shape
    return height, width
