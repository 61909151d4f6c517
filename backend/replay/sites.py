"""What a replay of corrected patches works on: images of the site a model comes from, and of the one it comes to."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from backend.learning.decode import decode_whole
from backend.replay.material import MaterialError
from tasks.datafolder import DataFolder, Row

Bytes = NDArray[np.uint8]

LONGEST = 256
"""Pixels of the longer side: larger images are made smaller, and their masks with them."""
PATCH = CROP = 64
"""Pixels of the sides of what is corrected and of what a training step sees, in such images."""
AROUND = 3
"""How often the thickness of what is to be found fits into a crop: of less around it nothing can be learnt."""
LEARNT, POOL, TESTED, KEPT = 16, 12, 8, 4
"""Images at most: of the source to learn from, of the target to correct, of the target and of the source to test on."""
FEWEST = 2
"""Groups of a site: below it nothing is left to test on."""


class Picture(NamedTuple):
    """An image uint8 (H, W, 3), its true masks (C, H, W), 0 outside each class, and what it must stay together with."""

    image: Bytes
    masks: Bytes
    group: str


@dataclass(frozen=True)
class Sites:
    """A draw of two sites' images, by whole groups (patients); no group is in two of the four.

    learnt and kept are of the source: to learn from, and to see what is forgotten. pool and tested are of the target:
    to correct, and to test on. classes: all mask heads' (`tasks.marks.planes`). side: pixels of a patch's.
    """

    source: str
    target: str
    classes: tuple[str, ...]
    side: int
    learnt: tuple[Picture, ...]
    pool: tuple[Picture, ...]
    tested: tuple[Picture, ...]
    kept: tuple[Picture, ...]


def site_called(folder: DataFolder, name: str | None, option: str) -> str:
    """The site of that name, or the only one with it in its name, upper case or lower.

    Only rows with a mask for every mask head count. Raises MaterialError, naming the sites, where there is none.
    """
    sites = _by_site(folder)
    if not sites:
        raise MaterialError(f"{folder.folder}: no row has a mask: there is nothing to correct")
    there = ", ".join(f"{site or '(empty)'!r} with {_images(rows)}" for site, rows in sorted(sites.items()))
    column = folder.schema.site_field
    where = f"the column {column!r} has {there}" if column else "the label config names no column in model_site"
    if not name:
        raise MaterialError(f"name the sites with --source and --target: {where}")
    found = [site for site in sites if site == name] or [site for site in sites if name.lower() in site.lower()]
    if len(found) != 1:
        many = "is in the names of several sites" if found else "is no site with masks"
        raise MaterialError(f"--{option} {name!r} {many}: {where}")
    return found[0]


def sites(folder: DataFolder, source: str, target: str, seed: int) -> Sites:
    """Draw the images of a replay of one seed. Raises MaterialError where a site has too few, or both are one.

    Where what is to be found is too thick for a crop, as lesions are, images and patches have half the side, and there
    are four times as many images. A site that has fewer than would be drawn is divided in the same proportion. Raises
    ImageError and MaskError where a file cannot be read.
    """
    if source == target:
        raise MaterialError(f"--source and --target are both {source!r}: name two sites")
    by_site = _by_site(folder)
    smaller_by = 2 if AROUND * _thickness(folder, by_site[source]) > CROP else 1
    rng = np.random.default_rng(seed)
    learnt, kept = _divided(source, by_site[source], (LEARNT * smaller_by**2, KEPT * smaller_by**2), rng)
    pool, tested = _divided(target, by_site[target], (POOL * smaller_by**2, TESTED * smaller_by**2), rng)
    classes = tuple(name for head in folder.schema.masks for name in head.classes)
    longest = LONGEST // smaller_by
    drawn = [tuple(_picture(folder, row, longest) for row in rows) for rows in (learnt, pool, tested, kept)]
    return Sites(source, target, classes, PATCH // smaller_by, *drawn)


def _thickness(folder: DataFolder, rows: Sequence[Row]) -> float:
    """Pixels of the thickest place of a mask, in images of LONGEST: the median over the first of a site's."""
    masks = (np.pad(mask, 1) for row in rows[:LEARNT] for mask in _picture(folder, row, LONGEST).masks)
    return float(np.median([2 * cv2.distanceTransform(mask, cv2.DIST_L2, 5).max() for mask in masks]))


def _by_site(folder: DataFolder) -> Mapping[str, list[Row]]:
    column, heads = folder.schema.site_field, folder.schema.masks
    found: dict[str, list[Row]] = defaultdict(list)
    for row in folder.rows:
        if all(head.name in row.true_masks for head in heads):
            found[row.cells.get(column or "", "")].append(row)
    return found


def _divided(
    site: str, rows: Sequence[Row], sizes: tuple[int, int], rng: np.random.Generator
) -> tuple[list[Row], list[Row]]:
    """Rows to work on and rows to test on, at most `sizes`, by whole groups and at least one of each."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.group].append(row)
    if len(groups) < FEWEST:
        raise MaterialError(
            f"the site {site!r} has {_images(rows)} with masks, of one patient: a replay corrects some, and tests on"
            " others"
        )
    share = min(1.0, len(rows) / sum(sizes))
    room = [size * share for size in sizes]
    found: tuple[list[Row], list[Row]] = ([], [])
    for name in rng.permutation(sorted(groups)).tolist():
        # Into the part that is emptier for its size; the first of each part always fits.
        part = int(len(found[1]) / sizes[1] < len(found[0]) / sizes[0])
        if not found[part] or len(found[part]) + len(groups[name]) <= room[part]:
            found[part].extend(groups[name])
    return found


def _images(rows: Sequence[Row]) -> str:
    return f"{len(rows)} image" if len(rows) == 1 else f"{len(rows)} images"


def _picture(folder: DataFolder, row: Row, longest: int) -> Picture:
    pixels = decode_whole(folder.folder / row.file)
    masks = np.concatenate([folder.mask(row, head.name, truth=True) for head in folder.schema.masks])
    return Picture(*smaller(pixels, masks, longest), row.group)


def smaller(image: Bytes, masks: Bytes, longest: int) -> tuple[Bytes, Bytes]:
    """An image (H, W, 3) and masks (C, H, W), the longer side at most `longest`; inside is what half of a pixel is."""
    height, width = image.shape[:2]
    scale = longest / max(height, width)
    if scale >= 1:
        return image, masks
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    shrunk = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))
    planes = [Image.fromarray(np.where(mask != 0, 255, 0).astype(np.uint8)) for mask in masks]
    inside = [np.asarray(plane.resize(size, Image.Resampling.BOX)) >= 128 for plane in planes]
    return shrunk, np.stack(inside).astype(np.uint8)
