"""How many labels on record are wrong: an estimate with an interval, from suspicions and what reviewers found.

A model of one line: the log-odds that a label is wrong are a + b times the log-odds that the model gives to "this
label does not hold". Where labels are swapped at random with rate e and the model is calibrated, that is exact with
b = 1 and a = logit e (Bayes' rule for two classes), so a is learnt from the reviews and b is held near 1. Tasks may be
picked for review by suspicion, as the queue does: given the suspicion, being picked says nothing more about the label.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

Floats = NDArray[np.floating]
Doubles = NDArray[np.float64]
LEVEL = 0.95
DRAWS = 4000
RATE, RATE_SPREAD = 0.05, 1.5  # prior of a: logit of the usual 5 % wrong, give or take a factor of 4.5
SLOPE_SPREAD = 0.5  # prior of b around 1
BINS = 256  # of the log-odds, so that 120,000 tasks cost as much as 256
NEVER = 1e-3  # suspicions are kept this far from 0 and 1


@dataclass(frozen=True)
class WrongLabels:
    """Wrong labels among those on record, found ones included: the estimate and its interval at LEVEL.

    found: how many reviewers found. left: the estimate of those nobody has reviewed, with its interval.
    """

    found: int
    total: float
    low: float
    high: float

    @property
    def left(self) -> tuple[float, float, float]:
        """Estimate, low and high of the wrong labels that are left."""
        return self.total - self.found, self.low - self.found, self.high - self.found


def estimate(suspicion: Floats, reviewed: NDArray[np.bool_], wrong: NDArray[np.bool_], seed: int = 0) -> WrongLabels:
    """Estimate the wrong labels among N.

    suspicion: (N,) in [0, 1], the out-of-fold probability that the label on record does not hold, by which the reviewed
    were picked, if not at random: one that knows less than what picked them makes the estimate too high. reviewed: (N,)
    which a person has checked. wrong: (N,) what that person found; read where reviewed. Raises ValueError where the
    arrays do not fit together.

    The interval is that of the posterior prediction of the others' sum.
    """
    rng = np.random.default_rng(seed)
    a, b = posterior(suspicion, reviewed, wrong, rng)
    odds = log_odds(suspicion)
    centres, counts = binned(odds[~reviewed])
    found = int(wrong[reviewed].sum())
    if not len(counts):
        return WrongLabels(found, float(found), float(found), float(found))
    share = expit(a[:, None] + b[:, None] * centres)
    expected = share @ counts
    left = expected + rng.normal(size=DRAWS) * np.sqrt((share * (1 - share)) @ counts)
    low, high = np.clip(np.quantile(left, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]), 0, len(odds) - int(reviewed.sum()))
    return WrongLabels(found, found + float(np.median(expected)), found + float(low), found + float(high))


def posterior(
    suspicion: Floats, reviewed: NDArray[np.bool_], wrong: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[Doubles, Doubles]:
    """DRAWS of a and of b; arguments and ValueError as in `estimate`.

    Their posterior is summed on a grid: the likelihood is that of a logistic regression on the reviewed.
    """
    if not suspicion.shape == reviewed.shape == wrong.shape:
        raise ValueError(f"suspicion {suspicion.shape}, reviewed {reviewed.shape}, wrong {wrong.shape} differ")
    odds = log_odds(suspicion[reviewed])
    a, b = np.linspace(-9, 4, 105)[:, None], np.linspace(0.05, 2.55, 51)[None]
    log_posterior = -0.5 * ((a - logit(RATE)) / RATE_SPREAD) ** 2 - 0.5 * ((b - 1) / SLOPE_SPREAD) ** 2
    centres, counts = binned(odds)
    bins = _bins(odds)
    wrongs = np.bincount(bins, weights=wrong[reviewed])[np.bincount(bins) > 0]
    for centre, count, of_them in zip(centres, counts, wrongs, strict=True):
        at = a + b * centre
        log_posterior = log_posterior - of_them * np.logaddexp(0, -at) - (count - of_them) * np.logaddexp(0, at)
    weight = np.exp(log_posterior - log_posterior.max()).ravel()
    drawn = rng.choice(weight.size, DRAWS, p=weight / weight.sum())
    return a[drawn // b.size, 0], b[0, drawn % b.size]


def log_odds(suspicion: Floats) -> Doubles:
    """The log-odds (N,) of suspicions, kept finite."""
    found: Doubles = logit(np.clip(suspicion.astype(np.float64), NEVER, 1 - NEVER))
    return found


def binned(odds: Doubles) -> tuple[Doubles, NDArray[np.intp]]:
    """Log-odds (N,) as up to BINS of them: the mean of each bin, and how many rows it holds."""
    bins = _bins(odds)
    count = np.bincount(bins)
    there = count > 0
    return np.bincount(bins, weights=odds)[there] / count[there], count[there]


def _bins(odds: Doubles) -> NDArray[np.intp]:
    if not len(odds):
        return np.zeros(0, dtype=np.intp)
    found: NDArray[np.intp] = np.clip(
        ((odds - odds.min()) / max(float(np.ptp(odds)), 1e-9) * BINS).astype(np.intp), 0, BINS - 1
    )
    return found
