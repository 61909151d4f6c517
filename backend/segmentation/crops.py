"""What a training step sees of an image: a window of one size, somewhere where a person has reviewed it."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from backend.learning.arrays import Float32, Rows

Bytes = NDArray[np.uint8]


class Arrays(Protocol):
    """N arrays, one a row; a single array over all rows is one, and so is a list of arrays of different sizes."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int, /) -> NDArray[np.uint8]: ...


class Examples(NamedTuple):
    """N images uint8 (H, W, 3), masks uint8 (C, H, W) that are 0 outside each class, and reviewed (H, W), likewise.

    Sizes may differ from row to row. Only pixels that are reviewed are ever learnt from, and only rows that have any
    are read beyond that; what is reviewed and in no mask is background.
    """

    images: Arrays
    masks: Arrays
    reviewed: Arrays


class Crop(NamedTuple):
    """uint8 (size, size, 3), (C, size, size) and (size, size)."""

    image: Bytes
    masks: Bytes
    reviewed: Bytes


class Reviewed:
    """Where the reviewed pixels of some rows are, by line: drawing one does not search 100 million pixels again."""

    def __init__(self, examples: Examples, rows: Rows) -> None:
        """Raises ValueError, with the row, where image, masks and reviewed are not of one size."""
        self._examples = examples
        self._lines = {int(row): self._counted(int(row)) for row in rows}
        self.area = np.array([self._lines[int(row)].sum() for row in rows], dtype=np.int64)

    def crop(self, row: int, size: int, rng: np.random.Generator) -> Crop:
        """A window of a row that holds a pixel drawn from its reviewed ones; beyond the image nothing is reviewed."""
        image, masks, reviewed = (part[row] for part in self._examples)
        lines = self._lines[row]
        line = int(np.searchsorted(np.cumsum(lines), rng.integers(lines.sum()), side="right"))
        column = int(rng.choice(np.flatnonzero(reviewed[line])))
        top, left = (
            int(rng.integers(max(0, place - size + 1), min(place, max(side - size, 0)) + 1))
            for place, side in zip((line, column), reviewed.shape, strict=True)
        )
        window = (slice(top, top + size), slice(left, left + size))
        kept = np.asarray(reviewed[window])
        beyond = [(0, size - side) for side in kept.shape]
        return Crop(
            np.pad(image[window], [*beyond, (0, 0)], mode="symmetric"),
            np.pad(masks[(slice(None), *window)], [(0, 0), *beyond]),
            np.pad(kept, beyond),
        )

    def pixels(self, row: int, count: int, rng: np.random.Generator) -> tuple[Rows, Rows]:
        """Lines and columns of at most `count` reviewed pixels of a row, drawn at random, top to bottom."""
        lines = self._lines[row]
        ends = np.cumsum(lines)
        drawn = np.sort(rng.choice(ends[-1], size=min(count, int(ends[-1])), replace=False))
        line = np.searchsorted(ends, drawn, side="right")
        reviewed = self._examples.reviewed[row]
        place = drawn - (ends[line] - lines[line])
        column = np.empty_like(line)
        for one in np.unique(line):
            column[line == one] = np.flatnonzero(reviewed[one])[place[line == one]]
        return line, column

    def _counted(self, row: int) -> NDArray[np.int64]:
        image, masks, reviewed = (part[row].shape for part in self._examples)
        if image[:2] != reviewed or masks[1:] != reviewed:
            raise ValueError(
                f"row {row}: the image is {image}, its masks are {masks} and what is reviewed of it is {reviewed}; "
                "they must be (H, W, 3), (C, H, W) and (H, W)"
            )
        counted: NDArray[np.int64] = np.count_nonzero(self._examples.reviewed[row], axis=1)
        return counted


def frequency(reviewed: Arrays, people: NDArray[np.bool_]) -> Float32:
    """(N,): how often rows are to be drawn so that at least half of the crops are of those that people corrected.

    reviewed: N of (H, W). people: (N,), True where people reviewed, False where a mask was on record. Within each kind
    every reviewed pixel counts alike. A few corrected patches would otherwise drown in the masks on record, which are
    of whole images; and left out altogether, these would be forgotten.
    """
    area = np.array([np.count_nonzero(reviewed[row]) for row in range(len(reviewed))], dtype=np.float32)
    corrected, recorded = area[people].sum(), area[~people].sum()
    if 0 < corrected < recorded:
        area[people] *= recorded / corrected
    return area


def reviewed_rows(examples: Examples) -> NDArray[np.bool_]:
    """(N,): which rows have a reviewed pixel."""
    return np.array([bool(np.any(examples.reviewed[row])) for row in range(len(examples.reviewed))], dtype=np.bool_)
