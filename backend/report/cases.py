"""The worst cases of masks as small pictures, embedded: image, mask on record, the model's mask, where it is unsure."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from backend import regions
from backend.drawings import masks_of
from backend.report.dice import Drawings, worst
from backend.segmentation.thumbnails import thumbnail
from tasks import marks
from tasks.schema import Schema

SHOWN = 6
# Okabe and Ito's, the light ones: told apart on black by colour-blind eyes. One class alone is white.
COLOURS = ("#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#f0e442", "#d55e00")
UNSEEN = 80  # the grey of pixels that nobody reviewed
QUALITY = 85  # of JPEG


def colours(schema: Schema) -> dict[str, str]:
    """The colour of each class, by its name; of classes that share one, the first."""
    names = list(dict.fromkeys(name for _, name in marks.planes(schema)))
    return {name: COLOURS[place % len(COLOURS)] if len(names) > 1 else "#ffffff" for place, name in enumerate(names)}


def pictured(drawings: Drawings) -> list[dict[str, Any]]:
    """The SHOWN worst, each with task, site, dice, people (whether they marked it) and four data URIs."""
    material, known, number = drawings.material, drawings.truth, drawings.material.project.version
    if known is None or number is None:
        return []
    items, folder = {item.id: item for item in material.items}, material.registry.version(material.project.id, number)
    found = []
    for task, dice in worst(drawings)[:SHOWN]:
        item, mark = items[task], known.marks[task]
        pixels = item.pixels or ""
        painted = np.load(material.registry.painted(mark.digest), mmap_mode="r")
        drawn = masks_of(folder, task, pixels, material.schema, *painted.shape[1:])
        assert drawn is not None  # it was compared
        image = thumbnail(np.load(material.registry.whole(pixels), mmap_mode="r"))
        found.append(
            {
                "task": task,
                "site": item.site,
                "dice": dice,
                "people": mark.people,
                "image": _uri(image.round().astype(np.uint8), "JPEG"),
                "record": _uri(coloured(material.schema, painted[:-1], painted[-1]), "PNG"),
                "model": _uri(coloured(material.schema, drawn, None), "PNG"),
                "unsure": _uri(_brightened(regions.map_of(folder, task)), "PNG"),
            }
        )
    return found


def coloured(schema: Schema, masks: NDArray[Any], reviewed: NDArray[Any] | None) -> NDArray[np.uint8]:
    """Masks (C, H, W) as a small picture (h, w, 3): each class in its colour, the later over the earlier, on black.

    reviewed: (H, W), elsewhere it is grey; None: all.
    """
    colour = colours(schema)
    found = np.zeros((*thumbnail(masks[0]).shape, 3), dtype=np.float32)
    for (_, name), mask in zip(marks.planes(schema), masks, strict=True):
        share = thumbnail(mask)[..., None]
        tint = np.array([int(colour[name][at : at + 2], 16) for at in (1, 3, 5)], dtype=np.float32)
        found = found * (1 - share) + tint * share
    if reviewed is not None:
        found += UNSEEN * (1 - thumbnail(reviewed))[..., None]
    return found.clip(0, 255).round().astype(np.uint8)


def _brightened(file: Path) -> NDArray[np.uint8]:
    """A map of uncertainty, which is dark almost everywhere, by its square root."""
    with Image.open(file) as map_:
        return (255 * np.sqrt(np.asarray(map_) / 255)).round().astype(np.uint8)


def _uri(pixels: NDArray[np.uint8], kind: str) -> str:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, quality=QUALITY, optimize=True)
    return _embedded(out.getvalue(), kind.lower())


def _embedded(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
