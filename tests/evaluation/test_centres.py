"""The test per centre beside the binomial test, and how often it is wrong where nothing is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from backend.evaluation import centres
from backend.evaluation.centres import Centre, calibration
from backend.evaluation.gate import GROUPS
from backend.evaluation.metrics import evaluate
from tasks.schema import Head

BOM = Head("bom", "image", "single", ("benign", "malignant"), 1.0, False, None, "malignant", True)
SIGNS = Head("signs", "image", "multiple", ("a", "b", "c"), 1.0, False, None, None, True)


def said(confidence: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (N, 2) that say benign so surely, and labels by which they are right or not."""
    p = np.stack([confidence, 1 - confidence], axis=1).astype(np.float32)
    return p, np.eye(2)[np.where(right, 0, 1)]


def at(places: list[tuple[str, float, int, int]]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Centres by name, confidence, answers and right ones."""
    confidence = np.concatenate([np.full(n, c) for _, c, n, _ in places])
    right = np.concatenate([np.arange(n) < k for _, _, n, k in places])
    return *said(confidence, right), [site for site, _, n, _ in places for _ in range(n)]


def alone(count: int) -> list[str]:
    return [f"p{row}" for row in range(count)]


@pytest.mark.parametrize(("n", "right"), [(40, 36), (40, 30), (200, 150), (200, 178), (60, 60)])
def test_with_one_image_a_patient_it_is_the_binomial_test(n: int, right: int) -> None:
    p, y, sites = at([("A", 0.9, n, right)])
    (row,) = calibration(BOM, p, y, sites, alone(n))
    # Both tails by distance from the mean, which is where the two-sided binomial test of Fisher may differ a little.
    outcomes = np.arange(n + 1)
    far = np.abs(outcomes - 0.9 * n) >= abs(right - 0.9 * n) - 1e-9
    assert row.p == pytest.approx(binom.pmf(outcomes, n, 0.9)[far].sum(), abs=0.025)
    if right == 30:
        assert row.p == pytest.approx(binomtest(30, 40, 0.9).pvalue, abs=0.01)
    assert (row.n, row.groups, row.right) == (n, n, right / n)
    assert row.ece == pytest.approx(evaluate(BOM, p, y)["ece"])


def test_a_centre_breaks_where_the_gap_is_wide_and_no_chance() -> None:
    p, y, sites = at(
        [("holds", 0.9, 200, 178), ("breaks", 0.9, 200, 130), ("few", 0.9, 12, 9), ("modest", 0.5, 40, 26)]
    )
    found = {row.site: row for row in calibration(BOM, p, y, sites, alone(len(sites)))}
    assert [site for site, row in found.items() if row.broken] == ["breaks"]
    assert found["breaks"].p == pytest.approx(1 / (centres.DRAWS + 1))
    assert found["few"].p > 0.05 and abs(found["few"].confidence - found["few"].right) > centres.MARGIN
    assert list(found) == sorted(found)


def test_a_gap_that_is_no_chance_but_small_wakes_nobody() -> None:
    p, y, sites = at([("A", 0.95, 4000, 3600)])
    (row,) = calibration(BOM, p, y, sites, alone(4000))
    assert row.p < 0.001 and not row.broken


def test_images_of_one_patient_count_once() -> None:
    """Twenty images each of the same mistake are one mistake."""
    p, y, sites = at([("A", 0.9, 12, 9)])
    (once,) = calibration(BOM, p, y, sites, alone(12))
    repeated = [np.repeat(array, 20, axis=0) for array in (p, y, np.array(sites), np.array(alone(12)))]
    (many,) = calibration(BOM, *repeated[:3], repeated[3].tolist())
    assert many.p == pytest.approx(once.p, abs=0.02) and not many.broken
    (fooled,) = calibration(BOM, *repeated[:3], alone(240))
    assert fooled.p < 0.001 and fooled.broken


def test_too_few_patients_are_not_tested_and_unlabelled_rows_do_not_count() -> None:
    p, y, sites = at([("A", 0.9, 100, 10), ("B", 0.9, 20, 18)])
    y[100:105] = np.nan
    found = calibration(BOM, p, y, sites, [f"p{row % (GROUPS - 1)}" for row in range(120)])
    assert [(row.n, row.p, row.broken) for row in found] == [(100, None, False), (15, None, False)]
    assert calibration(BOM, p[:0], y[:0], [], []) == []


def test_false_alarms_over_many_centres_are_as_rare_as_promised() -> None:
    rng, alarmed = np.random.default_rng(0), 0
    for seed in range(60):
        confidence = rng.uniform(0.5, 1.0, 8 * 30)
        p, y = said(confidence, rng.random(240) < confidence)
        rows = calibration(BOM, p, y, [f"s{row % 8}" for row in range(240)], alone(240), seed)
        tested = sorted(row.p for row in rows)
        alarmed += tested[0] <= centres.ALPHA / 8
    assert alarmed <= 8  # 3 expected at 5 %; 8 or more in 1 of 100 such loops


def test_multiple_choices_are_judged_question_by_question() -> None:
    p = np.tile(np.array([[0.9, 0.1, 0.9]], dtype=np.float32), (40, 1))
    y = np.tile(np.array([[1.0, 0.0, 0.0]]), (40, 1))
    (row,) = calibration(SIGNS, p, y, ["A"] * 40, alone(40))
    assert (row.confidence, row.right) == (pytest.approx(0.9), pytest.approx(2 / 3))
    assert row.broken


@settings(max_examples=10, deadline=None)
@given(st.integers(10, 40), st.integers(0, 40), st.integers(0, 3))
def test_it_is_deterministic_and_its_figures_are_shares(n: int, right: int, seed: int) -> None:
    p, y, sites = at([("A", 0.8, n, min(right, n))])
    one, other = (calibration(BOM, p, y, sites, alone(n), seed) for _ in range(2))
    assert one == other
    (row,) = one
    assert isinstance(row, Centre) and 0 < row.p <= 1 and 0 <= row.ece <= 1
