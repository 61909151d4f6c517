import numpy as np
import pytest
from scipy.stats import bootstrap

from backend.evaluation.compare import compare
from tasks.schema import Head

BOM = Head("bom", "image", "single", ("benign", "malignant"), 1.0, False, None, "malignant", True)


def rows(seed: int, skill: float, truth: np.ndarray) -> np.ndarray:
    """Probabilities of somebody who is right that often."""
    said = np.where(np.random.default_rng(seed).random(len(truth)) < skill, truth, 1 - truth)
    return np.where(np.eye(2)[said] > 0, 0.8, 0.2).astype(np.float32)


def test_the_interval_of_accuracy_equals_scipys_paired_bootstrap() -> None:
    truth = np.random.default_rng(0).integers(0, 2, 300)
    before, after = rows(1, 0.7, truth), rows(2, 0.8, truth)
    found = compare(BOM, before, after, np.eye(2)[truth], [str(i) for i in range(300)], draws=4000)["accuracy"]
    gain = (after.argmax(axis=1) == truth).astype(float) - (before.argmax(axis=1) == truth)
    reference = bootstrap((gain,), np.mean, method="percentile", n_resamples=4000, rng=np.random.default_rng(3))
    assert found.after - found.before == pytest.approx(gain.mean())
    assert (found.low, found.high) == pytest.approx(tuple(reference.confidence_interval), abs=0.01)


def test_images_of_one_patient_count_once() -> None:
    """Every patient ten times over leaves the interval as it is; as ten patients it would shrink threefold."""
    truth = np.random.default_rng(0).integers(0, 2, 60)
    before, after = rows(1, 0.6, truth), rows(2, 0.8, truth)
    once = compare(BOM, before, after, np.eye(2)[truth], [str(i) for i in range(60)])["accuracy"]
    ten = [np.repeat(array, 10, axis=0) for array in (before, after, np.eye(2)[truth])]
    grouped = compare(BOM, *ten, [str(i // 10) for i in range(600)])["accuracy"]
    single = compare(BOM, *ten, [str(i) for i in range(600)])["accuracy"]
    assert (grouped.low, grouped.high) == pytest.approx((once.low, once.high))
    assert single.high - single.low < 0.5 * (grouped.high - grouped.low)


def test_no_change_is_no_difference_and_worse_is_found() -> None:
    truth = np.random.default_rng(0).integers(0, 2, 200)
    good, bad = rows(1, 0.9, truth), rows(2, 0.6, truth)
    groups = [str(i) for i in range(200)]
    same = compare(BOM, good, good, np.eye(2)[truth], groups)
    assert all((value.low, value.high, value.p_worse) == (0, 0, 0.5) for value in same.values())
    worse = compare(BOM, good, bad, np.eye(2)[truth], groups)
    assert worse["auc"].p_worse > 0.99 and worse["auc"].high < 0
    assert worse["ece"].p_worse > 0.99 and worse["ece"].low > 0


def test_rows_that_cannot_tell_give_none() -> None:
    nothing = compare(BOM, *[np.zeros((0, 2), dtype=np.float32)] * 3, [])
    assert all(value.before is None and value.low is None for value in nothing.values())
    p = np.full((4, 2), 0.5, dtype=np.float32)
    benign = compare(BOM, p, p, np.tile([1.0, 0.0], (4, 1)), list("abcd"))
    assert benign["auc"].before is None and benign["sensitivity"].after is None
    assert benign["specificity"].low == 0.0
