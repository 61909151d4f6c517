"""The arrays that learning takes and gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Rows = NDArray[np.intp]
Targets = Mapping[str, Float32]
"""Per head (N, C): one-hot, or multi-hot for multiple choice; a row of NaN has no label."""
Weights = Mapping[str, Float32]
"""Per head (N,): what each row's label counts in learning, 1 as a rule; 0 drops it, for this head alone."""
Members = dict[str, Float32]
"""Per head (M, N, C): what each of M ensemble members says of N images."""


class Pixels(Protocol):
    """N square images of one size; a uint8 array (N, H, W, 3) is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Rows, /) -> Any: ...


class PixelFiles:
    """Decoded images kept as one .npy file each, uint8 (H, W, 3), read when they are asked for.

    120,000 images at 224 pixels are 18 GB: they stay on disk, and the page cache does the rest.
    """

    def __init__(self, paths: Sequence[str | Path]) -> None:
        self._paths = [Path(path) for path in paths]

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, rows: Rows, /) -> NDArray[np.uint8]:
        """uint8 (B, H, W, 3) for the B rows. Raises OSError or ValueError where a file is missing or damaged."""
        return np.stack([np.load(self._paths[int(row)], allow_pickle=False) for row in rows])
