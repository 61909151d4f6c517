"""What a version draws in the images: for each task a file with the regions that its annotator is shown.

regions/<task>.json   the regions, and what is told of them
regions/<task>.png    where the model is unsure, small and grey, for people to look at
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from backend.registry import load_json, save_json, whole
from tasks.codec import Result
from tasks.schema import Schema


def keep(
    folder: Path,
    task: int,
    pixels: str,
    results: Sequence[Result],
    figures: dict[str, Any],
    unsure: NDArray[np.float32],
) -> None:
    """Keep what a version (its folder) draws in a task's image, whose file has that sha256, and what is told of it.

    unsure: (h, w) in [0, 1], the uncertainty of its pixels.
    """
    with whole(map_of(folder, task)) as part:
        Image.fromarray((255 * np.clip(unsure, 0, 1)).round().astype(np.uint8)).save(part, "PNG")
    save_json(_path(folder, task), {"pixels": pixels, "results": list(results), "figures": figures})


def figures(folder: Path, task: int, pixels: str) -> dict[str, Any] | None:
    """What was kept beside the regions; None where the task was not drawn, or another image of it."""
    said = _read(folder, task, pixels)
    return None if said is None else said["figures"]


def of_task(folder: Path, task: int, pixels: str | None, schema: Schema) -> list[Result] | None:
    """What a version draws in a task's image, as far as the present label config has a place for it.

    None where the task was not drawn, or another image of it; an empty list where nothing is found.
    """
    said = _read(folder, task, pixels)
    if said is None:
        return None
    places = {head.name: set(head.classes) for head in schema.masks}
    look = schema.roles.get("look")
    if look is not None:
        places[look.name] = set(look.classes)
    return [
        result
        for result in said["results"]
        if result["from_name"] in places and set(result["value"].get(result["type"], ())) <= places[result["from_name"]]
    ]


def map_of(folder: Path, task: int) -> Path:
    """The file of where a version is unsure in a task's image."""
    return _path(folder, task).with_suffix(".png")


def _read(folder: Path, task: int, pixels: str | None) -> dict[str, Any] | None:
    path = _path(folder, task)
    if not path.exists():
        return None
    said: dict[str, Any] = load_json(path)
    return said if said["pixels"] == pixels else None


def _path(folder: Path, task: int) -> Path:
    return folder / "regions" / f"{task}.json"
