"""What the report says of masks: how well they are met on the hold-out, what was reviewed, and which look wrong."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from backend import regions
from backend.drawings import dice_by_task
from backend.evaluation.compare import Difference
from backend.evaluation.gate import GROUPS
from backend.evaluation.mask_gate import compare
from backend.learning.folds import HOLDOUT
from backend.marked import Marked
from backend.report.material import Item, Material
from backend.report.models import CENTRES, DRAWS, first_reviews, made, reviewed_before, seen_by
from backend.scored import Scored
from backend.segmentation.dice import Scores
from backend.snapshot import Snapshot
from tasks import marks
from tasks.schema import MaskHead

SUSPECT = 0.5  # doubt from which on a mask on record is named: its quality is below half of what is usual
SUSPECTS = 20  # named, the worst first
PROBLEMS = 20  # tasks whose regions cannot be read, named in full


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


def summary(material: Material) -> dict[str, Any] | None:
    """What is marked, how much of it was reviewed, what looks wrong; None where the label config asks for no masks.

    marked, by_people: tasks. spent: the patches and whole images that people reviewed. trusted: the mean share of the
    pixels that is learnt from, of images that people marked; None without any. problems: of regions that could not be
    read, PROBLEMS in full. suspects: as `suspects`.
    """
    if not material.schema.masks:
        return None
    there = [item for item in material.items if item.marks.recorded or item.marks.by_people]
    known = truth(material) or Truth({}, {})
    shares = [mark.reviewed for mark in known.marks.values() if mark.people]
    here = {item.id for item in material.items}
    problems = [{"task": task, "problems": list(said)} for task, said in sorted(known.problems.items()) if task in here]
    return {
        "marked": len(there),
        "by_people": sum(item.marks.by_people for item in there),
        "spent": {
            "patches": sum(item.marks.spent.patches for item in there),
            "images": sum(item.marks.spent.images for item in there),
        },
        "trusted": float(np.mean(shares)) if shares else None,
        "problems": {"count": len(problems), "tasks": problems[:PROBLEMS]},
        "suspects": suspects(material),
    }


def suspects(material: Material) -> dict[str, Any] | None:
    """Masks on record that the model in force doubts and nobody has reviewed, the worst first; None without one.

    The hold-out is kept out: who is told of a mask there does not answer it unseen, as honest figures need.
    count: doubted by SUSPECT or more, of `recorded` masks that were judged. tasks: SUSPECTS of them, each with task,
    control, class, its quality (`mask_errors.mask_quality`) and doubt.
    """
    number = material.project.version
    scored = None if number is None else material.scored(number)
    if number is None or scored is None or scored.scores is None or not scored.drawn:
        return None
    folder = material.registry.version(material.project.id, number)
    judged = {
        item.id: item
        for item in seen_by(material.items, [scored])
        if item.fold != HOLDOUT and item.marks.recorded and not item.marks.by_people
    }
    found = [
        (float(scored.scores.doubt(head.name)[scored.row_of[task]]), task, head)
        for head in material.schema.masks
        if head.name in scored.drawn
        for task in judged
    ]
    doubted = sorted((row for row in found if row[0] >= SUSPECT), key=lambda row: (-row[0], row[1]))
    return {
        "recorded": len(judged),
        "count": len(doubted),
        "tasks": [_suspect(material, folder, judged[task], head, doubt) for doubt, task, head in doubted[:SUSPECTS]],
    }


def _suspect(material: Material, folder: Path, item: Item, head: MaskHead, doubt: float) -> dict[str, Any]:
    said = regions.figures(folder, item.id, item.pixels or "") or {}
    planes = marks.planes(material.schema)
    quality = [
        (value, name)
        for (control, name), value in zip(planes, said.get("quality", ()), strict=False)
        if control == head.name and not np.isnan(value)
    ]
    value, name = min(quality, default=(None, None))
    return {"task": item.id, "control": head.name, "class": name, "quality": value, "doubt": doubt}


def before_and_after(material: Material) -> dict[str, Any] | None:
    """Dice of the first version that drew and of the one in force, on hold-out images that both drew; None without one.

    Against what is marked now. rows: of all centres, then per centre, the largest first: n images, of which people
    marked `adjudicated`, and figures: a `Difference` per class, its `before` None where there is one version alone.
    Intervals are None below GROUPS groups. worst: (task, mean Dice) of the version in force, the lowest first.
    """
    known, in_force = truth(material), material.project.version
    drew = [version.number for version in material.versions if made(material, version) is version]
    after = None if in_force is None else _drew(material, in_force)
    if known is None or in_force is None or after is None:
        return None
    first = next(((number, one) for number in drew if (one := _drew(material, number)) is not None), (in_force, after))
    held = [item for item in seen_by(material.holdout, [first[1], after]) if item.id in known.marks]
    new = _dice(material, in_force, held, known)
    old = new if first[0] == in_force else _dice(material, first[0], held, known)
    items = [item for item in held if item.id in old and item.id in new]
    sites: dict[str, list[Item]] = {}
    for item in items:
        if item.site is not None:
            sites.setdefault(item.site, []).append(item)
    largest = sorted(sites.items(), key=lambda site: (-len(site[1]), site[0]))
    several = first[0] != in_force
    means = [(item.id, float(np.nanmean(new[item.id]))) for item in items if not np.isnan(new[item.id]).all()]
    return {
        "first": first[0] if several else None,
        "in_force": in_force,
        "draws": DRAWS,
        "groups_needed": GROUPS,
        "classes": [_spoken(material, plane) for plane in marks.planes(material.schema)],
        "rows": [
            _row(material, site, there, old, new, known, several) for site, there in [(None, items), *largest[:CENTRES]]
        ],
        "centres_left_out": max(len(largest) - CENTRES, 0),
        "worst": sorted(means, key=lambda case: (case[1], case[0])),
    }


def gain(material: Material, head: MaskHead, first: int, last: int) -> Difference | None:
    """Dice of one control by two versions, on hold-out images that both drew; None where nothing is marked there."""
    known, one, two = truth(material), _drew(material, first), _drew(material, last)
    if known is None or one is None or two is None:
        return None
    held = [item for item in seen_by(material.holdout, [one, two]) if item.id in known.marks]
    old, new = _dice(material, first, held, known), _dice(material, last, held, known)
    part = np.array([control == head.name for control, _ in marks.planes(material.schema)])
    items = [item for item in held if item.id in old and item.id in new]
    return _difference(items, old, new, part) if items else None


def history(material: Material) -> list[dict[str, Any]]:
    """Per version that learnt masks: tasks reviewed before it, and the Dice that each control had when it was made."""
    reviews, names = first_reviews(material), [head.name for head in material.schema.masks]
    return [
        {
            "version": version.number,
            "reviewed": reviewed_before(reviews, version),
            "dice": {name: version.metrics.get(name, {}).get("dice") for name in names},
        }
        for version in material.versions
        if made(material, version) is version and any(name in version.metrics for name in names)
    ]


def _drew(material: Material, number: int) -> Scored | None:
    """What a version says, if it drew masks under the present label config."""
    scored = material.scored(number)
    return scored if scored is not None and scored.drawn else None


def _dice(material: Material, number: int, items: Iterable[Item], known: Truth) -> dict[int, Scores]:
    folder = material.registry.version(material.project.id, number)
    tasks = [(item.id, item.pixels or "", known.marks[item.id].digest) for item in items]
    return dice_by_task(material.registry, folder, material.schema, tasks)


def _spoken(material: Material, plane: tuple[str, str]) -> str:
    """A class as people read it: with its control where there are several."""
    return plane[1] if len(material.schema.masks) == 1 else f"{plane[0]}: {plane[1]}"


def _row(
    material: Material,
    site: str | None,
    items: Sequence[Item],
    old: Mapping[int, Scores],
    new: Mapping[int, Scores],
    known: Truth,
    several: bool,
) -> dict[str, Any]:
    figures, planes = {}, marks.planes(material.schema)
    for place, plane in enumerate(planes):
        found = _difference(items, old, new, np.arange(len(planes)) == place)
        if not several:
            found = replace(found, before=None, low=None, high=None, p_worse=None)
        figures[_spoken(material, plane)] = asdict(found)
    adjudicated = sum(known.marks[item.id].people for item in items)
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
