"""Benchmarks beside peers: `python -m bench`."""

from collections.abc import Callable
from time import perf_counter
from typing import NamedTuple


class Result(NamedTuple):
    """One line of output. ours and peer: seconds, the best of the runs; peer and ratio are None without a peer."""

    name: str
    size: str
    ours: float
    peer: float | None
    ratio: float | None
    against: str


def compare(
    name: str, size: str, ours: Callable[[], object], peer: Callable[[], object] | None = None, against: str = ""
) -> Result:
    """Time ours (best of 3) and the peer (once where it takes over a second, else best of 3); ratio: peer / ours."""
    mine = min(_seconds(ours) for _ in range(3))
    if peer is None:
        return Result(name, size, round(mine, 4), None, None, against)
    theirs = _seconds(peer)
    if theirs < 1:
        theirs = min(theirs, _seconds(peer), _seconds(peer))
    return Result(name, size, round(mine, 4), round(theirs, 4), round(theirs / mine, 2), against)


def _seconds(run: Callable[[], object]) -> float:
    start = perf_counter()
    run()
    return perf_counter() - start
