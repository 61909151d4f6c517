"""Images, masks and maps brought to a size at which a person takes them in at a glance."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.learning.arrays import Float32

LONGEST = 160  # pixels of the longer side


def thumbnail(pixels: NDArray[Any], longest: int = LONGEST) -> Float32:
    """The means (h, w, ...) over equal squares of pixels (H, W, ...), the longer side at most `longest`.

    Row by row of squares, so that of a mapped file only one is in memory. What is small enough stays as it is.
    """
    height, width = pixels.shape[:2]
    side = -(-max(height, width) // longest)
    starts = np.arange(0, width, side)
    counts = np.diff(np.append(starts, width)).reshape(-1, *[1] * (pixels.ndim - 2))
    lines = []
    for top in range(0, height, side):
        means = pixels[top : top + side].mean(axis=0, dtype=np.float32)
        lines.append(np.add.reduceat(means, starts, axis=0) / counts)
    found: Float32 = np.stack(lines).astype(np.float32)
    return found
