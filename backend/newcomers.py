"""What a version says of images that no cycle has seen: decoded, embedded and predicted here and now."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from backend.learning import crossfit
from backend.learning.backbone import Backbone
from backend.learning.decode import ImageError, decode
from backend.learning.fold_backbones import load_backbones, predict_new
from backend.learning.weights import load_crossfit
from backend.registry import Array


@lru_cache(maxsize=2)
def _weights(backbones: Path, heads: Path) -> tuple[list[Backbone], crossfit.CrossFit]:
    return load_backbones(backbones), load_crossfit(heads)


def predict(
    folder: Path, about: Mapping[str, Any], images: Sequence[bytes], pixel_limit: int
) -> list[dict[str, Array] | ImageError]:
    """Probabilities per head (C,) of each image file; for one that cannot be decoded, the reason.

    folder, about: of the version, as the cycle left them (model.json).
    """
    size = about["learning"]["image_size"]
    found: list[dict[str, Array] | ImageError] = []
    pixels, rows = [], []
    for row, data in enumerate(images):
        try:
            pixels.append(decode(data, size, pixel_limit))
            rows.append(row)
            found.append({})
        except ImageError as reason:
            found.append(reason)
    if not pixels:
        return found
    backbones = folder.parents[1] / "backbones" / about["backbones"]
    members = predict_new(*_weights(backbones, folder / "heads.safetensors"), np.stack(pixels))
    for place, row in enumerate(rows):
        found[row] = {head: values[:, place].mean(axis=0) for head, values in members.items()}
    return found
