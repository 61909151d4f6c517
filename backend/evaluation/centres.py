"""Whether a model's confidence holds at every centre, and where it breaks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from backend.evaluation.gate import GROUPS
from backend.evaluation.metrics import Floats, calibration_error
from tasks.schema import Head

MARGIN = 0.1  # between mean confidence and share right: less is no reason to wake anybody
ALPHA = 0.05  # chance of any false alarm over all centres of a version
DRAWS = 4000
CELLS = 20_000_000  # draws times answers that are held at a time


@dataclass(frozen=True)
class Centre:
    """One centre: labels and groups (patients), mean confidence of the answers and the share that is right, the
    calibration error, and the chance of so wide a gap were the confidence true (None below GROUPS groups).

    broken: the gap is wider than MARGIN, and than chance explains over all centres.
    """

    site: str
    n: int
    groups: int
    confidence: float
    right: float
    ece: float
    p: float | None
    broken: bool


def calibration(
    head: Head, probabilities: Floats, targets: Floats, sites: Sequence[str], groups: Sequence[str], seed: int = 0
) -> list[Centre]:
    """Every centre that has a label of the head, by name.

    probabilities: (N, C). targets: (N, C), NaN rows without a label are left out. sites, groups: (N,).

    The null hypothesis is that what is said with confidence c is right with probability c: its outcomes are drawn from
    the confidences themselves (consistency resampling, Bröcker and Smith 2007, Weather and Forecasting 22), all of a
    group by one random number, so that images of one patient, which may be right or wrong together, count as one. p is
    the share of DRAWS in which mean confidence and share right lie as far apart as observed, both ways, with one added
    to both counts (Davison and Hinkley 1997, eq. 4.11); Holm's step-down (1979) holds ALPHA over all centres tested.
    """
    known = np.flatnonzero(~np.isnan(targets).any(axis=1))
    confidence, right = _answers(head, probabilities[known].astype(np.float64), targets[known])
    where, member = np.asarray(sites)[known], np.asarray(groups)[known]
    rng = np.random.default_rng(seed)
    found = []
    for site in np.unique(where).tolist():
        rows = where == site
        c, r = confidence[rows], right[rows]
        names, place = np.unique(member[rows], return_inverse=True)
        p = _chance(c, r, place, len(names), rng) if len(names) >= GROUPS else None
        error = calibration_error(c.ravel(), r.ravel())
        found.append(Centre(site, len(c), len(names), float(c.mean()), float(r.mean()), error, p, False))
    return _broken(found)


def _answers(head: Head, p: NDArray[np.float64], y: Floats) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Confidence and whether it is right, (n, Q): one answer a row, or one for each question of a multiple choice."""
    if head.multiple:
        return np.maximum(p, 1 - p), (p >= 0.5) == (y > 0)
    return p.max(axis=1, keepdims=True), (p.argmax(axis=1) == y.argmax(axis=1))[:, None]


def _chance(
    confidence: NDArray[np.float64],
    right: NDArray[np.bool_],
    place: NDArray[np.intp],
    groups: int,
    rng: np.random.Generator,
) -> float:
    observed, said, extreme = abs(confidence.mean() - right.mean()), confidence.mean(), 0
    chunk = max(1, CELLS // confidence.size)
    for start in range(0, DRAWS, chunk):
        lot = rng.random((min(chunk, DRAWS - start), groups))[:, place, None]
        shares = (lot < confidence[None]).mean(axis=(1, 2))
        extreme += int((np.abs(said - shares) >= observed - 1e-12).sum())
    return (1 + extreme) / (1 + DRAWS)


def _broken(centres: list[Centre]) -> list[Centre]:
    """Mark those that break: Holm's procedure over what was tested, then the margin."""
    tested = sorted((row.p, place) for place, row in enumerate(centres) if row.p is not None)
    beyond = set[int]()
    for rank, (p, place) in enumerate(tested):
        if p > ALPHA / (len(tested) - rank):
            break
        beyond.add(place)
    return [
        replace(row, broken=place in beyond and abs(row.confidence - row.right) > MARGIN)
        for place, row in enumerate(centres)
    ]
