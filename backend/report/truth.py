"""What is marked in the images of a project by now, as the newest training painted it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from backend.marked import Marked
from backend.report.material import Material
from backend.report.models import made
from backend.snapshot import Snapshot


class Mark(NamedTuple):
    """What is marked in a task: the digest it lies painted under, by people or on record, the share of its pixels."""

    digest: str
    people: bool
    reviewed: float


@dataclass(frozen=True)
class Truth:
    """What was marked when the newest version was made, by task; and what could not be read then."""

    marks: Mapping[int, Mark]
    problems: Mapping[int, Sequence[str]]


def truth(material: Material) -> Truth | None:
    """As the newest version painted it under the present label config; None where none did."""
    present = material.schema.fingerprint()
    for version in reversed(material.versions):
        folder = material.registry.version(material.project.id, version.number)
        trained = made(material, version) is version  # one put in force again knows what was marked when it was trained
        if trained and version.schema == present and (folder / "marked.json").exists():
            found, ids = Marked.load(folder / "marked.json"), Snapshot.load(folder / "snapshot.npz").ids.tolist()
            rows = zip(ids, found.painted.tolist(), found.people.tolist(), found.reviewed.tolist(), strict=True)
            return Truth({task: Mark(*row) for task, *row in rows if row[0]}, found.problems)
    return None
