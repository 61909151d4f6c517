"""What is marked in a project's images: how much people reviewed of it, what cannot be read, what looks wrong."""

from pathlib import Path
from typing import Any

import numpy as np

from backend import regions
from backend.learning.folds import HOLDOUT
from backend.report.material import Item, Material
from backend.report.models import seen_by
from backend.report.truth import Truth, truth
from tasks import marks
from tasks.schema import MaskHead

SUSPECT = 0.5  # doubt from which on a mask on record is named: its quality is below half of what is usual
SUSPECTS = 20  # named, the worst first
PROBLEMS = 20  # tasks whose regions cannot be read, named in full


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
