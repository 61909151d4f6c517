"""What further reviews buy: wrong labels found and left, and the model's figure, each with an interval at LEVEL.

Both are posterior predictions: drawn from what the parameters may be, given what was seen, and from chance after that.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from backend.evaluation.wrong_labels import binned, log_odds, posterior

Floats = NDArray[np.floating]
Doubles = NDArray[np.float64]
Rows = NDArray[np.intp]

LEVEL = 0.95
HORIZONS = (100, 300, 1000)  # reviews ahead
POINTS = 3  # of a learning curve, below which nothing is said
DRAWS = 2000
SCALES = np.geomspace(30, 10_000, 16)  # prior of s: reviews until a third or so of what can be gained is gained
LEVEL_SPREAD, GAIN_SPREAD = 1.0, 0.1  # prior of the figure at the start and of all that can be gained, around 0.5 and 0
NOISE, NOISE_WORTH = 0.01, 3.0  # prior of the noise of a version's figure, and how many versions it is worth


@dataclass(frozen=True)
class Estimate:
    """A median and its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Find:
    """What the next `reviews` of the queue find, and the share of wrong labels among all on record after them."""

    reviews: int
    found: Estimate
    rate_left: Estimate


@dataclass(frozen=True)
class Past:
    """What was forecast then, and what came."""

    version: int
    reviews: int
    forecast: Estimate
    came: float

    @property
    def covered(self) -> bool:
        """Whether it lay within the interval."""
        return self.forecast.low <= self.came <= self.forecast.high


def finds(
    suspicion: Floats,
    reviewed: NDArray[np.bool_],
    wrong: NDArray[np.bool_],
    queue: Rows,
    classes: int,
    horizons: Sequence[int] = HORIZONS,
    seed: int = 0,
) -> list[Find]:
    """What the next reviews in the queue's order find, per horizon; a horizon past its end stops there.

    suspicion, reviewed, wrong, classes: of N labels on record, as `wrong_labels.estimate` takes them, whose posterior
    this draws from. queue: rows in the order of their review, none of them reviewed. Raises ValueError where it names
    a reviewed row or the arrays do not fit together. One horizon each length that the queue has.
    """
    if reviewed[queue].any():
        raise ValueError(f"row {queue[reviewed[queue]][0]} of the queue is reviewed already")
    rng = np.random.default_rng(seed)
    a, b = (drawn[:DRAWS] for drawn in posterior(suspicion, reviewed, wrong, rng, classes))
    odds = log_odds(suspicion, classes)
    ends = sorted({min(horizon, len(queue)) for horizon in horizons} - {0})
    rest = ~reviewed
    rest[queue[: ends[-1]] if ends else queue] = False
    parts = [queue[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    drawn = [_wrong_among(odds[rows], a, b, rng) for rows in [*parts, np.flatnonzero(rest)]]
    found = np.cumsum(drawn, axis=0)
    rate = (found[-1] - found) / max(len(suspicion), 1)
    return [Find(end, _estimate(found[place]), _estimate(rate[place])) for place, end in enumerate(ends)]


def among(
    suspicion: Floats, reviewed: NDArray[np.bool_], wrong: NDArray[np.bool_], rows: Rows, classes: int, seed: int = 0
) -> Estimate:
    """How many wrong labels these unreviewed rows hold; arguments and ValueError as in `finds`."""
    if not len(rows):
        return Estimate(0.0, 0.0, 0.0)
    (found,) = finds(suspicion, reviewed, wrong, rows, classes, (len(rows),), seed)
    return found.found


def figure(
    reviewed: Sequence[int], figures: Sequence[float], at: Sequence[int], seed: int = 0
) -> list[Estimate] | None:
    """The figure of a version trained after `at` reviews in all, per entry; None below POINTS versions.

    reviewed: per version, tasks reviewed before its training. figures: (K,) in [0, 1], on the same hold-out, such as
    AUC. The learning curve f(n) = f0 + gain (1 - 1 / sqrt(1 + n / s)) is an inverse power law with the exponent at one
    half, the usual rate (Figueroa et al. 2012; Viering and Loog 2023); f0 and gain are those of a Bayesian linear
    regression, whose noise and s are unknown as well: s is summed over SCALES by its evidence. The interval holds the
    noise of the figure itself; it does not hold a change of the queue or of the annotators.
    """
    if len(figures) < POINTS:
        return None
    rng = np.random.default_rng(seed)
    n, y = np.asarray(reviewed, dtype=np.float64), np.asarray(figures, dtype=np.float64) - 0.5
    shape = NOISE_WORTH / 2
    precision = np.diag([(NOISE / LEVEL_SPREAD) ** 2, (NOISE / GAIN_SPREAD) ** 2])  # over the noise's
    evidence, means, roots, scatters = [], [], [], []
    for scale in SCALES:
        x = _rise(n, scale)
        posterior_precision = precision + x.T @ x
        mean = np.linalg.solve(posterior_precision, x.T @ y)
        scatter = shape * NOISE**2 + (y @ y - mean @ posterior_precision @ mean) / 2
        _, log_determinant = np.linalg.slogdet(posterior_precision)
        evidence.append(-log_determinant / 2 - (shape + len(y) / 2) * np.log(scatter))
        means.append(mean)
        roots.append(np.linalg.cholesky(np.linalg.inv(posterior_precision)))
        scatters.append(scatter)
    weight = np.exp(np.array(evidence) - max(evidence))
    which = rng.choice(len(SCALES), DRAWS, p=weight / weight.sum())
    noise = np.sqrt(np.array(scatters)[which] / rng.gamma(shape + len(y) / 2, size=DRAWS))
    line = np.array(means)[which] + noise[:, None] * np.einsum(
        "dij,dj->di", np.array(roots)[which], rng.normal(size=(DRAWS, 2))
    )
    found = []
    for then in at:
        x = np.stack([_rise(np.array([float(then)]), scale)[0] for scale in SCALES])[which]
        drawn = 0.5 + (line * x).sum(axis=1) + noise * rng.normal(size=DRAWS)
        found.append(_estimate(np.clip(drawn, 0, 1)))
    return found


def _rise(n: Doubles, scale: float) -> Doubles:
    """(K, 2): the start, and the share of the gain that n reviews give."""
    return np.stack([np.ones(len(n)), 1 - 1 / np.sqrt(1 + n / scale)], axis=1)


def _wrong_among(odds: Doubles, a: Doubles, b: Doubles, rng: np.random.Generator) -> Doubles:
    """How many of the rows are wrong, one draw (D,) for each of a and b."""
    if not len(odds):
        return np.zeros(len(a))
    centres, counts = binned(odds)
    drawn: Doubles = rng.binomial(counts, expit(a[:, None] + b[:, None] * centres)).sum(axis=1).astype(np.float64)
    return drawn


def _estimate(drawn: Doubles) -> Estimate:
    low, middle, high = np.quantile(drawn, [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2])
    return Estimate(float(middle), float(low), float(high))
