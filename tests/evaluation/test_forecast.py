"""Forecasts beside simulated replays: what comes lies within the intervals as often as they say."""

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import multivariate_t

from backend.evaluation import forecast
from backend.evaluation.wrong_labels import estimate

REPLAYS = 200


def replay(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A thousand labels that are wrong as often as a calibrated model says, up to a project's own a and b; a hundred
    reviewed, 80 of them the most suspicious. Returns suspicion, reviewed, wrong, and the others most suspicious first.
    """
    rng = np.random.default_rng(seed)
    suspicion = expit(rng.normal(-2, 2, 1000))
    a, b = logit(0.05) + 0.7 * rng.normal(), 1 + 0.2 * rng.normal()
    wrong = rng.random(1000) < expit(a + b * logit(suspicion))
    reviewed = np.zeros(1000, dtype=bool)
    reviewed[np.argsort(-suspicion)[:80]] = True
    reviewed[rng.choice(np.flatnonzero(~reviewed), 20, replace=False)] = True
    order = np.argsort(-suspicion, kind="stable")
    return suspicion, reviewed, wrong, order[~reviewed[order]]


def test_the_wrong_labels_that_are_found_and_left_lie_within_the_intervals() -> None:
    found, left, widths = np.zeros(3), np.zeros(3), []
    for seed in range(REPLAYS):
        suspicion, reviewed, wrong, queue = replay(seed)
        said = forecast.finds(suspicion, reviewed, wrong, queue, 2, (50, 100, 300), seed)
        assert [row.reviews for row in said] == [50, 100, 300]
        for place, row in enumerate(said):
            came = wrong[queue[: row.reviews]].sum()
            found[place] += row.found.low <= came <= row.found.high
            left[place] += row.rate_left.low <= (wrong[~reviewed].sum() - came) / 1000 <= row.rate_left.high
        widths.append(said[-1].found.high - said[-1].found.low)
    assert (found >= 0.9 * REPLAYS).all() and (left >= 0.9 * REPLAYS).all()
    assert np.mean(widths) < 60  # of 300: it says something


def test_all_that_is_left_agrees_with_the_estimate_of_all() -> None:
    suspicion, reviewed, wrong, queue = replay(1)
    (said,) = forecast.finds(suspicion, reviewed, wrong, queue, 2, (5000,))
    all_of_them = estimate(suspicion, reviewed, wrong, 2)
    assert said.reviews == 900 and said.rate_left == forecast.Estimate(0, 0, 0)
    for ours, theirs in zip((said.found.value, said.found.low, said.found.high), all_of_them.left, strict=True):
        assert ours == pytest.approx(theirs, abs=2)
    assert said.found == forecast.among(suspicion, reviewed, wrong, queue, 2)
    assert forecast.among(suspicion, reviewed, wrong, queue[:0], 2) == forecast.Estimate(0, 0, 0)


def test_no_label_is_left_to_review() -> None:
    suspicion, _, wrong, queue = replay(2)
    assert forecast.finds(suspicion, np.ones(1000, dtype=bool), wrong, queue[:0], 2) == []


def test_what_was_reviewed_cannot_come_again() -> None:
    suspicion, reviewed, wrong, _ = replay(3)
    with pytest.raises(ValueError, match=f"row {np.flatnonzero(reviewed)[0]} of the queue is reviewed already"):
        forecast.finds(suspicion, reviewed, wrong, np.arange(1000), 2)


def test_the_figures_of_later_versions_lie_within_the_intervals() -> None:
    """Inverse square roots with a version's own noise, of many shapes: from a curve that is flat to one still steep."""
    within, widths = np.zeros(3), []
    for seed in range(REPLAYS):
        rng = np.random.default_rng(seed)
        scale, start, gain = 10 ** rng.uniform(1.5, 3.5), rng.uniform(0.7, 0.85), rng.uniform(0, 0.15)
        noise, versions = rng.choice([0.003, 0.01, 0.02]), int(rng.integers(3, 9))

        def seen(n: np.ndarray, line=(start, gain, scale, noise), rng=rng) -> np.ndarray:
            return line[0] + line[1] * (1 - 1 / np.sqrt(1 + n / line[2])) + line[3] * rng.normal(size=len(n))

        n = 100.0 * np.arange(versions)
        figures, ahead = seen(n), n[-1] + np.array([100.0, 300.0, 1000.0])
        said = forecast.figure(n.tolist(), figures.tolist(), ahead.tolist(), seed)
        assert said is not None
        came = seen(ahead)
        within += [row.low <= value <= row.high for row, value in zip(said, came, strict=True)]
        widths.append([row.high - row.low for row in said])
    assert (within >= 0.9 * REPLAYS).all()
    assert (np.mean(widths, axis=0) < 0.12).all() and (np.diff(np.mean(widths, axis=0)) > 0).all()


def test_a_figure_is_what_the_joint_density_of_all_versions_says() -> None:
    """The versions seen and the one to come are Student-t together, given the scale: divided out on a grid."""
    n, y = np.array([0, 150, 300, 450, 750]), np.array([0.80, 0.84, 0.855, 0.861])
    (said,) = forecast.figure(n[:4].tolist(), y.tolist(), [750]) or []
    points = np.linspace(0.7, 1.0, 3001)
    seen = np.concatenate([np.tile(y, (len(points), 1)), points[:, None]], axis=1)
    density = np.zeros(len(points))
    for scale in forecast.SCALES:
        rise = 1 - 1 / np.sqrt(1 + n / scale)
        covariance = (
            forecast.NOISE**2 * np.eye(5) + forecast.LEVEL_SPREAD**2 + forecast.GAIN_SPREAD**2 * np.outer(rise, rise)
        )
        density += multivariate_t(np.full(5, 0.5), covariance, df=forecast.NOISE_WORTH).pdf(seen)
    cumulated = np.cumsum(density) / density.sum()
    low, middle, high = np.interp([0.025, 0.5, 0.975], cumulated, points)
    assert said.value == pytest.approx(middle, abs=0.001)
    assert (said.low, said.high) == pytest.approx((low, high), abs=0.003)


def test_two_versions_are_too_few() -> None:
    assert forecast.figure([0, 100], [0.8, 0.82], [200]) is None


def test_a_figure_stays_one() -> None:
    said = forecast.figure([0, 100, 200], [0.98, 0.995, 0.999], [1200]) or []
    assert 0.9 < said[0].value <= said[0].high <= 1
