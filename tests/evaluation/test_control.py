import math

import numpy as np
import pytest
from scipy.stats import norm

from backend.evaluation.control import Arm, Saving, Share, at_random, automation_bias, labels_saved, rate


def wilson(hits: int, of: int) -> tuple[float, float]:
    """Wilson (1927) by its formula."""
    z, p = norm.ppf(0.975), hits / of
    middle = (p + z**2 / (2 * of)) / (1 + z**2 / of)
    half = z / (1 + z**2 / of) * math.sqrt(p * (1 - p) / of + z**2 / (4 * of**2))
    return max(0.0, middle - half), min(1.0, middle + half)


@pytest.mark.parametrize(("wrong", "reviewed"), [(0, 20), (3, 60), (20, 20)])
def test_the_rate_is_wilsons(wrong: int, reviewed: int) -> None:
    found = rate(Arm(reviewed, wrong))
    assert found.share == wrong / reviewed
    assert (found.low, found.high) == pytest.approx(wilson(wrong, reviewed), abs=1e-9)


def test_what_chance_would_have_found() -> None:
    low, high = at_random(Arm(100, 5), 300)
    assert (low, high) == (math.floor(wilson(5, 100)[0] * 300), math.ceil(wilson(5, 100)[1] * 300))
    assert low < 15 < high
    assert at_random(Arm(0, 0), 300) is None


def test_reviews_saved() -> None:
    found = labels_saved(Arm(100, 30), Arm(200, 10))
    assert found.saved == pytest.approx(30 / 0.05 - 100)
    assert found.low < found.saved < found.high
    assert found.shown
    assert not labels_saved(Arm(100, 5), Arm(200, 10)).shown  # no better than chance
    assert labels_saved(Arm(100, 0), Arm(200, 10)).saved == -100
    assert labels_saved(Arm(100, 5), Arm(50, 0)).high == math.inf
    assert labels_saved(Arm(100, 5), Arm(0, 0)) == labels_saved(Arm(0, 0), Arm(9, 1)) == Saving(None, None, None)


def test_newcombes_example() -> None:
    """Newcombe 1998, table II, (a) 56/70 - 48/80, method 10: 0.2000 (0.0524, 0.3339)."""
    found = automation_bias(56, 70, 48, 80)
    assert (found.share, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
    assert automation_bias(0, 0, 1, 2) == automation_bias(1, 2, 0, 0) == Share(None, None, None)


def test_the_bias_interval_covers() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(300):
        found = automation_bias(int(rng.binomial(80, 0.9)), 80, int(rng.binomial(80, 0.8)), 80)
        assert found.low is not None and found.high is not None
        inside += found.low <= 0.1 <= found.high
    assert inside / 300 > 0.92
