"""Grey values of any depth to eight bits, a block of rows at a time: on the way they take eight bytes a pixel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Transform = Callable[[Values], Values]

BLOCK = 1 << 20


def blocks(pixels: NDArray[Any]) -> Iterator[slice]:
    """Ranges of rows of an (H, W, ...) array, of some million pixels each."""
    step = max(1, BLOCK // pixels.shape[1])
    return (slice(start, start + step) for start in range(0, pixels.shape[0], step))


def extremes(pixels: NDArray[Any], transform: Transform | None = None, without: Any = None) -> tuple[float, float]:
    """Smallest and largest finite value of (H, W) pixels after `transform`; those that equal `without` do not count."""
    found = []
    for block in blocks(pixels):
        values = pixels[block].astype(np.float64)
        values = values[np.isfinite(values) & (values != without)]
        if values.size:
            values = values if transform is None else transform(values)
            found += [float(values.min()), float(values.max())]
    return (min(found), max(found)) if found else (0.0, 0.0)


def stretch(low: float, high: float) -> Transform:
    """Low to 0, high to 1; where they are the same, all to 0."""
    scale = 1 / (high - low) if high > low else 0.0
    return lambda values: (values - low) * scale


def eight_bits(pixels: NDArray[Any], transform: Transform) -> NDArray[np.uint8]:
    """(H, W) pixels through `transform`, whose 0 and less is black, 1 and more white; what is no number is black."""
    grey = np.empty(pixels.shape, np.uint8)
    for block in blocks(pixels):
        values = np.nan_to_num(transform(pixels[block].astype(np.float64)))
        grey[block] = np.rint(255 * np.clip(values, 0, 1))
    return grey
