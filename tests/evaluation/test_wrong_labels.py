import numpy as np
import pytest
from scipy.special import expit, logit

from backend.evaluation.wrong_labels import estimate


def replay(seed: int, noise: float, top: int, control: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A thousand binary labels, some swapped; a model of AUC 0.92 that learnt from them; the most suspicious and a
    random few reviewed. Returns suspicion, reviewed and which labels are wrong.
    """
    rng = np.random.default_rng(seed)
    truth = rng.random(1000) < 0.35
    clean = expit(2 * (np.where(truth, 1, -1) + rng.normal(size=1000)) + logit(0.35))
    swapped = rng.random(1000) < noise
    learnt = (1 - noise) * clean + noise * (1 - clean)
    suspicion = np.where(truth ^ swapped, 1 - learnt, learnt)
    reviewed = np.zeros(1000, dtype=bool)
    reviewed[rng.choice(1000, control, replace=False)] = True
    left = np.argsort(np.where(reviewed, 1, -suspicion), kind="stable")
    reviewed[left[:top]] = True
    return suspicion, reviewed, swapped


@pytest.mark.parametrize(("noise", "top", "control"), [(0.05, 80, 20), (0.05, 50, 50), (0.02, 80, 20), (0.1, 150, 50)])
def test_after_a_hundred_reviews_the_estimate_is_fair_and_the_interval_covers(
    noise: float, top: int, control: int
) -> None:
    found, true, covered = [], [], 0
    for seed in range(50):
        suspicion, reviewed, swapped = replay(seed, noise, top, control)
        said = estimate(suspicion, reviewed, swapped, 2, seed)
        found.append(said.total)
        true.append(swapped.sum())
        covered += said.low <= swapped.sum() <= said.high
    assert abs(np.mean(found) / np.mean(true) - 1) <= 0.15
    assert covered >= 45


def test_everything_reviewed_is_known() -> None:
    suspicion, _, swapped = replay(0, 0.05, 0, 0)
    said = estimate(suspicion, np.ones(1000, dtype=bool), swapped, 2)
    assert said.total == said.low == said.high == said.found == swapped.sum()
    assert said.left == (0, 0, 0)


def test_nothing_reviewed_leaves_a_wide_interval() -> None:
    suspicion, _, swapped = replay(0, 0.05, 0, 0)
    said = estimate(suspicion, np.zeros(1000, dtype=bool), swapped, 2)
    assert said.found == 0
    assert said.high > 5 * max(said.low, 1)


def test_what_nobody_reviewed_is_not_read() -> None:
    suspicion, reviewed, swapped = replay(0, 0.05, 80, 20)
    assert estimate(suspicion, reviewed, swapped, 2) == estimate(suspicion, reviewed, swapped & reviewed, 2)


def test_arrays_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="differ"):
        estimate(np.zeros(3), np.zeros(2, dtype=bool), np.zeros(3, dtype=bool), 2)
