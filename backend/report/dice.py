"""How well versions meet what is marked now: Dice on the hold-out, before and after, and from version to version."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from backend.drawings import dice_by_task
from backend.evaluation.compare import Difference
from backend.evaluation.gate import GROUPS
from backend.evaluation.mask_gate import compare, mean
from backend.report.material import Item, Material
from backend.report.models import CENTRES, DRAWS, first_reviews, made, reviewed_before, seen_by
from backend.report.truth import truth
from backend.segmentation.dice import Scores
from tasks import marks
from tasks.schema import MaskHead

NEWEST = 12  # versions in the curve: each takes reading what it drew


class Drawings:
    """What versions drew in the hold-out's marked images, beside what is marked there now; each is read once."""

    def __init__(self, material: Material) -> None:
        self.material = material
        self.truth = truth(material)
        self.items = [item for item in material.holdout if self.truth is not None and item.id in self.truth.marks]
        self._dice: dict[int, dict[int, Scores] | None] = {}

    def dice(self, number: int) -> dict[int, Scores] | None:
        """Dice (C,) of a version by task, of the images it drew as they are now; None where it drew no masks."""
        if number not in self._dice:
            self._dice[number] = self._read(number)
        return self._dice[number]

    def _read(self, number: int) -> dict[int, Scores] | None:
        material, scored = self.material, self.material.scored(number)
        if self.truth is None or scored is None or not scored.drawn:
            return None
        folder, known = material.registry.version(material.project.id, number), self.truth.marks
        tasks = [(item.id, item.pixels or "", known[item.id].digest) for item in seen_by(self.items, [scored])]
        return dice_by_task(material.registry, folder, material.schema, tasks)

    def trained(self) -> list[int]:
        """The versions that drew masks by the present label config and are still there; no copies of earlier ones."""
        present, project = self.material.schema.fingerprint(), self.material.project.id
        return [
            row.number
            for row in self.material.versions
            if made(self.material, row) is row
            and row.schema == present
            and (self.material.registry.version(project, row.number) / "regions").exists()
        ]


def before_and_after(drawings: Drawings) -> dict[str, Any] | None:
    """Dice of the first version that drew and of the one in force, on hold-out images that both drew; None without one.

    Against what is marked now. rows: of all centres, then per centre, the largest first: n images, of which people
    marked `adjudicated`, and figures: a `Difference` per class, its `before` None where there is one version alone.
    Intervals are None below GROUPS groups.
    """
    material, in_force = drawings.material, drawings.material.project.version
    after = None if in_force is None else drawings.dice(in_force)
    if in_force is None or after is None:
        return None
    first = next(iter(drawings.trained()), in_force)
    before = drawings.dice(first) or {}
    items = [item for item in drawings.items if item.id in before and item.id in after]
    sites: dict[str, list[Item]] = {}
    for item in items:
        if item.site is not None:
            sites.setdefault(item.site, []).append(item)
    largest = sorted(sites.items(), key=lambda site: (-len(site[1]), site[0]))
    several = first != in_force
    return {
        "first": first if several else None,
        "in_force": in_force,
        "draws": DRAWS,
        "groups_needed": GROUPS,
        "classes": [_spoken(material, plane) for plane in marks.planes(material.schema)],
        "rows": [
            _row(drawings, site, there, before, after, several) for site, there in [(None, items), *largest[:CENTRES]]
        ],
        "centres_left_out": max(len(largest) - CENTRES, 0),
    }


def worst(drawings: Drawings) -> list[tuple[int, float]]:
    """(task, mean Dice over classes) of the version in force on the hold-out, the lowest first."""
    found = drawings.dice(drawings.material.project.version or 0) or {}
    means = [(task, float(np.nanmean(scores))) for task, scores in found.items() if not np.isnan(scores).all()]
    return sorted(means, key=lambda case: (case[1], case[0]))


def gain(material: Material, head: MaskHead, first: int, last: int) -> Difference | None:
    """Dice of one control by two versions, on hold-out images that both drew; None where nothing is marked there."""
    drawings = Drawings(material)
    old, new = drawings.dice(first) or {}, drawings.dice(last) or {}
    items = [item for item in drawings.items if item.id in old and item.id in new]
    part = np.array([control == head.name for control, _ in marks.planes(material.schema)])
    return _difference(items, old, new, part) if items else None


def curve(drawings: Drawings) -> list[dict[str, Any]]:
    """Per version, the NEWEST of them: tasks reviewed before it, and the mean Dice of each control.

    Against what is marked now, on images that all of these drew, so that the points compare; as in the paired test, who
    finds nothing where another version wrongly drew something is right. n: the images.
    """
    material, numbers = drawings.material, drawings.trained()[-NEWEST:]
    found = {number: drawings.dice(number) or {} for number in numbers}
    items = [item.id for item in drawings.items if all(item.id in scores for scores in found.values())]
    if not items or not numbers:
        return []
    scores = np.array([[found[number][task] for task in items] for number in numbers])
    scores = np.where((~np.isnan(scores)).any(axis=0), np.nan_to_num(scores, nan=1.0), np.nan)
    reviews, planes = first_reviews(material), [control for control, _ in marks.planes(material.schema)]
    versions = {version.number: version for version in material.versions}
    points = []
    for number, own in zip(numbers, scores, strict=True):
        dice = {}
        for head in material.schema.masks:
            (value,) = mean(own[:, [control == head.name for control in planes]], np.ones((1, len(items))))
            dice[head.name] = None if np.isnan(value) else float(value)
        reviewed = reviewed_before(reviews, versions[number])
        points.append({"version": number, "reviewed": reviewed, "n": len(items), "dice": dice})
    return points


def _spoken(material: Material, plane: tuple[str, str]) -> str:
    """A class as people read it: with its control where there are several."""
    return plane[1] if len(material.schema.masks) == 1 else f"{plane[0]}: {plane[1]}"


def _row(
    drawings: Drawings,
    site: str | None,
    items: Sequence[Item],
    old: Mapping[int, Scores],
    new: Mapping[int, Scores],
    several: bool,
) -> dict[str, Any]:
    assert drawings.truth is not None  # else no version drew anything to compare
    figures, planes = {}, marks.planes(drawings.material.schema)
    for place, plane in enumerate(planes):
        found = _difference(items, old, new, np.arange(len(planes)) == place)
        if not several:
            found = replace(found, before=None, low=None, high=None, p_worse=None)
        figures[_spoken(drawings.material, plane)] = asdict(found)
    adjudicated = sum(drawings.truth.marks[item.id].people for item in items)
    return {"centre": site, "n": len(items), "adjudicated": adjudicated, "figures": figures}


def _difference(
    items: Sequence[Item], old: Mapping[int, Scores], new: Mapping[int, Scores], part: np.ndarray[Any, Any]
) -> Difference:
    """Of the classes in `part`, over these tasks."""
    groups = [item.group or f"task {item.id}" for item in items]
    before, after = (
        np.array([scores[item.id][part] for item in items]).reshape(len(items), int(part.sum()))
        for scores in (old, new)
    )
    found = compare(before, after, groups, DRAWS)
    return found if len(set(groups)) >= GROUPS else replace(found, low=None, high=None, p_worse=None)
