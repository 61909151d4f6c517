"""Embeddings on disk, by image: computed once for each backbone, in shards that are only ever added."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backend.registry import load_arrays, save_arrays

Floats = NDArray[np.float32]


def known(folder: Path, member: int) -> dict[str, tuple[Path, int]]:
    """Where the embedding of each image (by digest) lies for one backbone."""
    found: dict[str, tuple[Path, int]] = {}
    for shard in sorted(folder.glob(f"embeddings-{member}-*.npz")):
        with np.load(shard, allow_pickle=False) as file:
            found |= {str(digest): (shard, row) for row, digest in enumerate(file["digests"])}
    return found


def extend(folder: Path, member: int, digests: Iterable[str], embed: Callable[[Sequence[str]], Floats]) -> None:
    """Add a shard with the embeddings of those images that have none yet. embed: digests -> float32 (n, D)."""
    have = known(folder, member)
    missing = [digest for digest in dict.fromkeys(map(str, digests)) if digest not in have]
    if missing:
        shard = len(list(folder.glob(f"embeddings-{member}-*.npz")))
        path = folder / f"embeddings-{member}-{shard:04d}.npz"
        save_arrays(path, {"digests": np.array(missing), "values": embed(missing)})


def load(folder: Path, member: int, digests: Sequence[str]) -> Floats:
    """Embeddings float32 (N, D) of these images. Raises KeyError for one that was never embedded."""
    where = known(folder, member)
    shards = {shard: load_arrays(shard)["values"] for shard in {path for path, _ in where.values()}}
    first = next(iter(shards.values()))
    found = np.empty((len(digests), first.shape[1]), dtype=np.float32)
    for row, digest in enumerate(digests):
        shard, place = where[str(digest)]
        found[row] = shards[shard][place]
    return found
