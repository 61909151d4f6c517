"""An image of any size, seen through overlapping tiles whose answers are blended.

What is held in memory is one row of tiles across the image, never the image's own answer: finished rows are handed
over as they come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from backend.learning.arrays import Float32
from tasks.tiling import starts

Bytes = NDArray[np.uint8]

STRIDE = 32  # what the side of a tile is a multiple of: the encoder halves it five times
OVERLAP = 4  # neighbours share a side / OVERLAP of their pixels
BATCH = 4  # tiles at a time


class Image(Protocol):
    """uint8 (H, W, 3): an array, or one mapped from a file that is read tile by tile."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, window: tuple[slice, slice], /) -> Any: ...


def blended(image: Image, tile: int, answer: Callable[[Bytes], Float32]) -> Iterator[tuple[int, Float32]]:
    """Blend what `answer` says of tiles of an image; yields (top, rows float32 (K, h, W)) from top to bottom.

    answer: tiles uint8 (B, h, w, 3), h and w at most `tile` and multiples of 32, to float32 (B, K, h, w). Where tiles
    overlap, the answers are averaged with weights that rise linearly from a tile's edge: what a network says at the
    edge of its view is worth less, and no seam shows. An image smaller than a tile, or not a multiple of 32, is
    mirrored at its edges. Memory: (K + 1) x tile x W floats.

    Raises ValueError for an image without pixels, or one that is not (H, W, 3).
    """
    if len(image.shape) != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"an image to segment is (H, W, 3) with pixels in it, not {tuple(image.shape)}")
    height, width = image.shape[:2]
    tall, wide = (min(tile, -(-side // STRIDE) * STRIDE) for side in (height, width))
    tops, lefts = starts(height, tall, tile // OVERLAP), starts(width, wide, tile // OVERLAP)
    weights = _ramp(tall, tile // OVERLAP)[:, None] * _ramp(wide, tile // OVERLAP)
    total: Float32 | None = None
    for index, top in enumerate(tops):
        for first in range(0, len(lefts), BATCH):
            few = lefts[first : first + BATCH]
            answers = answer(np.stack([_cut(image, top, left, tall, wide) for left in few]))
            if total is None:
                total = np.zeros((answers.shape[1] + 1, tall, lefts[-1] + wide), dtype=np.float32)
            for left, one in zip(few, answers, strict=True):
                total[:-1, :, left : left + wide] += one * weights
                total[-1, :, left : left + wide] += weights
        assert total is not None
        finished = (tops[index + 1] if index + 1 < len(tops) else height) - top
        yield top, total[:-1, :finished, :width] / total[-1, :finished, :width]
        kept = tall - finished
        total[:, :kept] = total[:, finished:].copy()
        total[:, kept:] = 0


def _ramp(side: int, overlap: int) -> Float32:
    """(side,): rises to 1 over `overlap` pixels from both ends, and is above 0 everywhere."""
    place = np.arange(side)
    depth = np.minimum(place, side - 1 - place) + 1
    ramp: Float32 = np.minimum(depth / (overlap + 1), 1).astype(np.float32)
    return ramp


def _cut(image: Image, top: int, left: int, tall: int, wide: int) -> Bytes:
    """The tile (tall, wide, 3), mirrored where it reaches beyond the image."""
    found = np.asarray(image[top : top + tall, left : left + wide], dtype=np.uint8)
    beyond = [(0, tall - found.shape[0]), (0, wide - found.shape[1]), (0, 0)]
    return np.pad(found, beyond, mode="symmetric")
