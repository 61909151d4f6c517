"""Which U-Nets a version has: those before it where nothing has changed, these trained on, or new ones."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import structlog

from backend.learning.backbone import Progress
from backend.marked import Marked
from backend.registry import Registry, load_json, save_json
from backend.segmentation import ensemble
from backend.segmentation.crops import frequency
from backend.segmentation.ensemble import Ensemble
from backend.segmentation.unet import UNet, with_reachable_weights
from backend.settings import Settings
from backend.snapshot import Snapshot
from tasks import marks
from tasks.schema import Schema

log = structlog.get_logger()

FOLDER = "unets"  # of a version, with its members
REFIT_SHARE = 0.25  # more marked images than U-Nets began with, from which on new ones are trained


def learn(
    folder: Path,
    before: Path,
    registry: Registry,
    schema: Schema,
    taken: Snapshot,
    marked: Marked,
    settings: Settings,
    progress: Progress,
) -> Ensemble | None:
    """Train the U-Nets of a version (its folder), or go on with it; None while too little is marked.

    before: the folder of the model in force. Its U-Nets are taken over where what they learn from is the same, and
    trained on where they were made alike, fold by fold, of nearly as many images. Raises what the training raises.
    """
    rows = marked.trained(taken.folds)
    if not marked.learnable(taken.folds):
        log.info("too few images are marked", version=folder.name, marked=len(rows))
        return None
    own = folder / FOLDER
    if (own / "made.json").exists():
        return ensemble.load(own)
    config, said = with_reachable_weights(settings.segmentation)
    if said is not None:
        log.warning("no pretrained weights", version=folder.name, reason=said)
    alike = {"classes": [list(plane) for plane in marks.planes(schema)], "config": asdict(config)}
    about: dict[str, Any] = alike | {"learnt_from": marked.fingerprint(taken), "began_with": len(rows)}
    kept = _made(before, alike)
    if kept is not None and kept["learnt_from"] == about["learnt_from"]:
        found = ensemble.load(before / FOLDER)
        ensemble.save(found, own)
        about = kept
    else:
        starts: tuple[UNet, ...] | None = None
        if kept is not None and len(rows) <= (1 + REFIT_SHARE) * kept["began_with"] and not _moved(before, taken):
            starts, about["began_with"] = ensemble.load(before / FOLDER).members, kept["began_with"]
            config = config.going_on()
        log.info("training U-Nets", version=folder.name, images=len(rows), anew=starts is None)
        examples = marked.examples(registry, taken, rows)
        often = frequency(examples.reviewed, marked.people[rows])
        classes = [label for _, label in marks.planes(schema)]
        found = ensemble.cross_fit(examples, taken.folds[rows], classes, config, starts, often, progress, own)
    save_json(own / "made.json", about)
    return found


def _made(folder: Path, alike: dict[str, Any]) -> dict[str, Any] | None:
    """What is told of a version's U-Nets; None where it has none, or they were made in another way."""
    path = folder / FOLDER / "made.json"
    if not path.exists():
        return None
    told: dict[str, Any] = load_json(path)
    return told if {name: told[name] for name in alike} == alike else None


def _moved(before: Path, taken: Snapshot) -> bool:
    """Whether an image that a version's U-Nets were trained on, or its group, lies in another fold now.

    Number k must never have seen fold k.
    """
    then, marked = Snapshot.load(before / "snapshot.npz"), Marked.load(before / "marked.json")
    fold_of: dict[str, int] = {}
    for row in marked.trained(then.folds).tolist():
        for key in (f"group {then.groups[row]}", f"image {then.pixels[row]}"):
            fold_of[key] = int(then.folds[row])
    return any(
        fold_of.get(key, fold) != fold
        for group, pixels, fold in zip(taken.groups.tolist(), taken.pixels.tolist(), taken.folds.tolist(), strict=True)
        for key in (f"group {group}", f"image {pixels}")
    )
