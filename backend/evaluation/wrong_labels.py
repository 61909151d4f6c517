"""How many labels on record are wrong: an estimate with an interval, from suspicions and what reviewers found.

A model of one line: the log-odds that a label is wrong are a + b times the log-odds that the model gives to "this
label does not hold", less those of chance. Where labels are swapped at random with rate e and the model is calibrated,
that is exact with b = 1 and a = logit e (Bayes' rule), so a is learnt from the reviews and b is held near 1: somewhat
above it, since a model that learnt from wrong labels is less sure than the labels deserve. Tasks may be picked for
review by suspicion, as the queue does: given the suspicion, being picked says nothing more about the label.

The most suspicious are reviewed first, and among them are the cases that the model is mistaken about: there the line
bends down. Followed, it would be too flat where nobody has looked, and the many unsuspicious labels would count for
wrong ones. So the log-odds end at CAP.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

Floats = NDArray[np.floating]
Doubles = NDArray[np.float64]
LEVEL = 0.95
DRAWS = 4000
RATE, RATE_SPREAD = 0.05, 1.0  # prior of a: logit of the usual 5 % wrong, give or take a factor of 2.7
SLOPE, SLOPE_SPREAD = 1.2, 0.3  # prior of b, lognormal: its median, give or take a factor of 1.35
CAP = np.log(9)  # the log-odds of a suspicion of 0.9 between two classes
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


def estimate(
    suspicion: Floats, reviewed: NDArray[np.bool_], wrong: NDArray[np.bool_], classes: int, seed: int = 0
) -> WrongLabels:
    """Estimate the wrong labels among N.

    suspicion: (N,) in [0, 1], the out-of-fold probability that the label on record does not hold, by which the reviewed
    were picked, if not at random: one that knows less than what picked them makes the estimate too high. reviewed: (N,)
    which a person has checked. wrong: (N,) what that person found; read where reviewed. classes: how many answers a
    label is one of; 2 for multiple choices, whose classes are each a yes or no. Raises ValueError where the arrays do
    not fit together.

    The interval is that of the posterior prediction of the others' sum.
    """
    rng = np.random.default_rng(seed)
    a, b = posterior(suspicion, reviewed, wrong, rng, classes)
    odds = log_odds(suspicion, classes)
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
    suspicion: Floats, reviewed: NDArray[np.bool_], wrong: NDArray[np.bool_], rng: np.random.Generator, classes: int
) -> tuple[Doubles, Doubles]:
    """DRAWS of a and of b; arguments and ValueError as in `estimate`.

    Their posterior is summed on a grid: the likelihood is that of a logistic regression on the reviewed.
    """
    if not suspicion.shape == reviewed.shape == wrong.shape:
        raise ValueError(f"suspicion {suspicion.shape}, reviewed {reviewed.shape}, wrong {wrong.shape} differ")
    odds = log_odds(suspicion[reviewed], classes)
    a, log_b = np.linspace(-9, 4, 105)[:, None], np.linspace(np.log(0.2), np.log(6), 69)[None]
    b = np.exp(log_b)
    log_posterior = -0.5 * ((a - logit(RATE)) / RATE_SPREAD) ** 2 - 0.5 * ((log_b - np.log(SLOPE)) / SLOPE_SPREAD) ** 2
    centres, counts = binned(odds)
    bins = _bins(odds)
    wrongs = np.bincount(bins, weights=wrong[reviewed])[np.bincount(bins) > 0]
    for centre, count, of_them in zip(centres, counts, wrongs, strict=True):
        at = a + b * centre
        log_posterior = log_posterior - of_them * np.logaddexp(0, -at) - (count - of_them) * np.logaddexp(0, at)
    weight = np.exp(log_posterior - log_posterior.max()).ravel()
    drawn = rng.choice(weight.size, DRAWS, p=weight / weight.sum())
    return a[drawn // b.size, 0], b[0, drawn % b.size]


def log_odds(suspicion: Floats, classes: int) -> Doubles:
    """The log-odds (N,) of suspicions, less those of a label drawn from so many classes; CAP at most."""
    odds = logit(np.clip(suspicion.astype(np.float64), NEVER, 1 - NEVER)) - np.log(max(classes - 1, 1))
    found: Doubles = np.minimum(odds, CAP)
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
