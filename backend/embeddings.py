"""Embeddings on disk, by image: computed once for each backbone, in shards that only ever grow."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backend.registry import Array, load_arrays, save_arrays

Floats = NDArray[np.float32]
Progress = Callable[[int, int], None]

SHARD = 4096  # images


def known(folder: Path, member: int) -> dict[str, tuple[Path, int]]:
    """Where the embedding of each image (by digest) lies for one backbone."""
    found: dict[str, tuple[Path, int]] = {}
    for shard in sorted(folder.glob(f"embeddings-{member}-*.npz")):
        with np.load(shard, allow_pickle=False) as file:
            found |= {str(digest): (shard, row) for row, digest in enumerate(file["digests"])}
    return found


def extend(
    folder: Path,
    member: int,
    digests: Iterable[str],
    embed: Callable[[Sequence[str], Progress], Floats],
    progress: Progress,
) -> None:
    """Keep the embeddings of those images that have none yet. embed: digests -> float32 (n, D).

    At most SHARD of them are lost by a kill. A shard is only ever replaced by one that holds its rows, in their
    places, and more behind them: whoever reads meanwhile finds what `known` named, and images that come one at a time
    do not become a file each.
    """
    have = known(folder, member)
    missing = [digest for digest in dict.fromkeys(map(str, digests)) if digest not in have]
    done = 0
    while done < len(missing):
        path, held = _shard_to_fill(folder, member)
        part = missing[done : done + SHARD - (len(held["digests"]) if held else 0)]
        new = {"digests": np.array(part), "values": embed(part, _from(progress, done, len(missing)))}
        save_arrays(path, {name: np.concatenate([held[name], new[name]]) for name in new} if held else new)
        done += len(part)


def _shard_to_fill(folder: Path, member: int) -> tuple[Path, dict[str, Array]]:
    """The last shard with what it holds, or, where that is full, a new one."""
    shards = sorted(folder.glob(f"embeddings-{member}-*.npz"))
    held = load_arrays(shards[-1]) if shards else {}
    if held and len(held["digests"]) < SHARD:
        return shards[-1], held
    return folder / f"embeddings-{member}-{len(shards):04d}.npz", {}


def _from(progress: Progress, done: int, total: int) -> Progress:
    """Report a part as what it adds to those before it."""
    return lambda here, _: progress(done + here, total)


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
