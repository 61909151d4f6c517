"""Thyroid ultrasound phantoms as a data folder: images, nodule masks, and labels of which some are wrong.

Every column of current labels holds wrong ones; the truth stands beside it under `true_*`, for measuring
alone. The images of one patient share the nodule, its features and its malignancy.
"""

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from demo.nodule import grow_nodule
from demo.tirads import BOM, LEVELS, POINTS, Ceiling, Patient, ceiling, draw_patients
from demo.ultrasound import SITES, grow_neck, scan

WRONG = 0.05  # of each column's current labels
ADJACENT = 0.85  # of the wrong TI-RADS levels are off by one; the rest by two
MARK = "phantoms.json"  # says that the folder is ours, and may be written anew

CLASSES: Mapping[str, tuple[str, ...]] = {
    "bom": BOM,
    "tirads": LEVELS,
    **{name: tuple(classes) for name, classes in POINTS.items()},
}


class FolderTaken(ValueError):
    """The folder holds something that these functions did not write."""


def write_phantoms(folder: Path, images: int, seed: int, progress: Callable[[int, int], None] | None = None) -> Ceiling:
    """Write `images` phantoms and their labels into `folder`; the same bytes for the same (images, seed).

    `progress` is called with (images written, images in all). `labels.csv` comes last, so that a folder
    which has one is complete. Raises FolderTaken where `folder` is not empty and not one of ours, ValueError
    where `images` is below 1 or `seed` below 0.
    """
    if images < 1:
        raise ValueError(f"the number of images must be 1 or more, not {images}")
    if seed < 0:
        raise ValueError(f"the seed must be 0 or more, not {seed}")
    _claim(folder)
    patients = draw_patients(images, len(SITES), seed)
    reached = ceiling(patients)
    mark = {"images": images, "seed": seed, "ceiling": reached.expected}
    (folder / MARK).write_text(json.dumps(mark, indent=1) + "\n")
    truths: list[dict[str, str]] = []
    places: list[dict[str, str]] = []
    for patient in patients:
        body = np.random.default_rng([seed, 2, patient.number])
        neck, nodule = grow_neck(body), grow_nodule(patient.features, body)
        site = SITES[patient.site]
        for view in range(patient.views):
            name = f"phantom-{len(places) + 1:06d}.png"
            pixels, mask = scan(neck, nodule, site, np.random.default_rng([seed, 3, patient.number, view]))
            Image.fromarray(pixels).save(folder / "images" / name)
            Image.fromarray(mask).save(folder / "masks" / name)
            truths.append(_truth(patient))
            places.append(
                {
                    "file": f"images/{name}",
                    "patient": f"P{patient.number + 1:05d}",
                    "site": site.name,
                    "mask": f"masks/{name}",
                }
            )
            if progress is not None:
                progress(len(places), images)
    _write_labels(folder / "labels.csv", places, truths, _with_errors(truths, seed))
    return reached


def _claim(folder: Path) -> None:
    """Make the folder ours: an empty one, or one of ours emptied of its phantoms."""
    if folder.exists() and not folder.is_dir():
        raise FolderTaken(f"{folder} is a file; name a new or an empty folder for the phantoms")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).is_file():
        raise FolderTaken(
            f"{folder} is not empty and was not written by `second-look phantoms` (it has no {MARK}); "
            "name a new or an empty folder"
        )
    (folder / "labels.csv").unlink(missing_ok=True)
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
        for old in (folder / part).glob("phantom-*.png"):
            old.unlink()


def _truth(patient: Patient) -> dict[str, str]:
    features = patient.features
    return {
        "bom": BOM[patient.malignant],
        "tirads": patient.level,
        "composition": features.composition,
        "echogenicity": features.echogenicity,
        "shape": features.shape,
        "margin": features.margin,
        "foci": "|".join(features.foci),
    }


def _with_errors(truths: list[dict[str, str]], seed: int) -> list[dict[str, str]]:
    """The current labels: the truth, but for a share of WRONG rows in each column, drawn per column."""
    rng = np.random.default_rng([seed, 4])
    current = [dict(truth) for truth in truths]
    for column in CLASSES:
        for row in rng.permutation(len(truths))[: round(WRONG * len(truths))].tolist():
            current[row][column] = _mistake(column, truths[row][column], rng)
    return current


def _mistake(column: str, truth: str, rng: np.random.Generator) -> str:
    if column == "tirads":
        off = 1 if rng.random() < ADJACENT else 2
        at = LEVELS.index(truth)
        near = [at + step for step in (-off, off) if 0 <= at + step < len(LEVELS)]
        return LEVELS[int(rng.choice(near))]
    if column == "foci" and truth != "none":  # one of the foci overlooked
        seen = truth.split("|")
        seen.pop(int(rng.integers(len(seen))))
        return "|".join(seen) or "none"
    others = [name for name in CLASSES[column] if name != truth]
    return others[int(rng.integers(len(others)))]


def _write_labels(
    path: Path, places: list[dict[str, str]], truths: list[dict[str, str]], current: list[dict[str, str]]
) -> None:
    columns = ["file", *CLASSES, "patient", "site", "mask", *(f"true_{name}" for name in CLASSES)]
    with path.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, columns, lineterminator="\n")
        writer.writeheader()
        for place, truth, label in zip(places, truths, current, strict=True):
            writer.writerow({**place, **label, **{f"true_{name}": value for name, value in truth.items()}})
