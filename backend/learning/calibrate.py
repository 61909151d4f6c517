"""Temperature scaling: one number per head that makes confidence mean what it says."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit, log_softmax, logsumexp, softmax

from backend.learning.arrays import Float32

FEWEST = 30
"""Below so many labelled rows a fitted temperature says more about chance than about the model."""
HOTTEST = 20.0


def temperature(logits: Float32, targets: Float32, multiple: bool) -> float:
    """The T that minimises the negative log-likelihood of the mean over members of softmax(z / T).

    logits: (M, N, C). targets: (N, C), NaN rows are left out. Sigmoid in place of softmax for multiple
    choice. T is searched between 1/20 and 20. Returns 1.0 where fewer than 30 rows are labelled or they
    all have the same labels. Guo et al., On Calibration of Modern Neural Networks, ICML 2017; applied
    within the mean, so that what an ensemble gains by averaging is not scaled away.
    """
    known = ~np.isnan(targets).any(axis=1)
    scores, truth = logits[:, known].astype(np.float64), targets[known].astype(np.float64)
    if len(truth) < FEWEST or (truth == truth[0]).all():
        return 1.0

    def loss(log_t: float) -> float:
        scaled = scores / np.exp(log_t)
        members = np.log(len(scores))
        if multiple:
            ticked = logsumexp(log_expit(scaled), axis=0) - members
            absent = logsumexp(log_expit(-scaled), axis=0) - members
            return -float((truth * ticked + (1 - truth) * absent).mean())
        return -float((truth * (logsumexp(log_softmax(scaled, axis=2), axis=0) - members)).sum(axis=1).mean())

    limits = (-np.log(HOTTEST), np.log(HOTTEST))
    found = minimize_scalar(loss, bounds=limits, method="bounded")  # type: ignore[no-untyped-call]
    return float(np.exp(found.x))


def apply(logits: Float32, temperature: float, multiple: bool) -> Float32:
    """Calibrated probabilities of each member, float32 (M, N, C); multiple choice: of each class alone."""
    scaled = logits / np.float32(temperature)
    probabilities: Float32 = (expit(scaled) if multiple else softmax(scaled, axis=2)).astype(np.float32)
    return probabilities
