"""What each member of a version's ensemble says of each task: kept only for an acquisition function of one's own."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backend.registry import load_arrays, save_arrays

Floats = NDArray[np.float32]
ROUNDING = 1e-4  # of a mean of float32 probabilities

Blocks = Sequence[tuple[NDArray[np.intp], Mapping[str, Floats]]]


def save(path: Path, ids: NDArray[np.int64], blocks: Blocks) -> None:
    """Write the members of N tasks; ids (N,), blocks as `scored.score` takes them: (rows (n,), head -> (M, n, C)).

    Blocks may differ in M; members that a task does not have are NaN.
    """
    most = max((len(values) for _, members in blocks for values in members.values()), default=0)
    whole: dict[str, Floats] = {}
    for rows, members in blocks:
        for head, values in members.items():
            if head not in whole:
                whole[head] = np.full((most, len(ids), values.shape[2]), np.nan, dtype=np.float32)
            whole[head][: len(values), rows] = values
    save_arrays(path, {"ids": ids} | {f"m:{head}": values for head, values in whole.items()})


def load(path: Path, ids: NDArray[np.int64], probabilities: Mapping[str, Floats]) -> dict[str, Floats]:
    """Per head (M, N, C) for these N tasks, whose means are `probabilities` (N, C); missing members are NaN.

    A task that is not in the file, or whose mean is another one by now (a new image), has its mean as its one member;
    without a file, all have.
    """
    arrays = load_arrays(path) if path.exists() else {"ids": ids[:0]}
    place = {int(task): row for row, task in enumerate(arrays["ids"])}
    rows = np.array([place.get(int(task), -1) for task in ids], dtype=np.intp)
    found = {}
    for head, mean in probabilities.items():
        kept = arrays.get(f"m:{head}")
        if kept is None or kept.shape[2] != mean.shape[1]:
            found[head] = mean[None].astype(np.float32)
            continue
        values = np.array(kept[:, rows], dtype=np.float32)
        own = np.nansum(values, axis=0) / np.maximum(np.isfinite(values).sum(axis=0), 1)
        other = (rows < 0) | np.any(np.abs(own - mean) > ROUNDING, axis=1)
        values[:, other] = np.nan
        values[0, other] = mean[other]
        found[head] = values
    return found
