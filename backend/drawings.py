"""How well what a version drew meets what is marked: its regions beside the painted masks, task by task."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backend import regions
from backend.registry import Registry
from backend.segmentation.dice import Scores, dice
from tasks.mask_codec import decode_masks
from tasks.schema import Schema


def masks_of(folder: Path, task: int, pixels: str, schema: Schema, height: int, width: int) -> NDArray[np.bool_] | None:
    """What a version (its folder) drew in a task's image, (C, H, W) over all mask heads; None where it did not."""
    results = regions.of_task(folder, task, pixels, schema)
    if results is None:
        return None
    found = decode_masks(schema, results, height, width).masks
    return np.concatenate([found[head.name] for head in schema.masks])


def dice_by_task(
    registry: Registry, folder: Path, schema: Schema, tasks: Iterable[tuple[int, str, str]]
) -> dict[int, Scores]:
    """Dice (C,) of a version's masks with what is marked now, where it was reviewed; by task, of those it drew.

    tasks: (task, sha256 of its image, digest under which its masks lie painted). NaN for a class that is in neither.
    """
    found = {}
    for task, pixels, digest in tasks:
        painted = np.load(registry.painted(digest), mmap_mode="r")
        drawn = masks_of(folder, task, pixels, schema, *painted.shape[1:])
        if drawn is not None:
            found[task] = dice(drawn, painted[:-1], painted[-1])
    return found
