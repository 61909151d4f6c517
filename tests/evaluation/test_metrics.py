import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from backend.evaluation.metrics import BINS, calibration_error, evaluate
from tasks.schema import Head


def head(kind: str, classes: tuple[str, ...], positive: str | None = None) -> Head:
    return Head("bom", "image", kind, classes, 1.0, False, None, positive, True)  # type: ignore[arg-type]


def test_figures_of_a_single_choice_equal_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet([1, 1], 200).astype(np.float32)
    truth = rng.integers(0, 2, 200)
    y = np.eye(2, dtype=np.float32)[truth]
    y[:20] = np.nan
    found = evaluate(head("single", ("benign", "malignant"), "malignant"), p, y)
    assert found["n"] == 180
    assert found["accuracy"] == pytest.approx((p[20:].argmax(axis=1) == truth[20:]).mean())
    assert found["auc"] == pytest.approx(roc_auc_score(truth[20:], p[20:, 1]))


def test_auc_without_a_positive_class_is_one_against_rest() -> None:
    rng = np.random.default_rng(1)
    p = rng.dirichlet([1, 1, 1], 300)
    truth = rng.integers(0, 3, 300)
    found = evaluate(head("single", ("a", "b", "c")), p.astype(np.float32), np.eye(3, dtype=np.float32)[truth])
    assert found["auc"] == pytest.approx(roc_auc_score(truth, p, multi_class="ovr"), abs=1e-6)


def test_multiple_choice_counts_each_class() -> None:
    p = np.array([[0.9, 0.2], [0.4, 0.6]], dtype=np.float32)
    y = np.array([[1, 0], [1, 1]], dtype=np.float32)
    found = evaluate(head("multiple", ("a", "b")), p, y)
    assert found["accuracy"] == 0.75
    assert found["auc"] == 1.0  # of "b" alone: "a" is always true


def test_what_cannot_be_measured_is_none() -> None:
    nothing = np.full((3, 2), np.nan, dtype=np.float32)
    p = np.full((3, 2), 0.5, dtype=np.float32)
    assert evaluate(head("single", ("a", "b")), p, nothing)["accuracy"] is None
    one_class = np.tile(np.array([1, 0], dtype=np.float32), (3, 1))
    assert evaluate(head("single", ("a", "b")), p, one_class)["auc"] is None


def test_calibration_error_equals_its_definition() -> None:
    rng = np.random.default_rng(2)
    confidence = rng.random(500)
    confidence[0] = 1.0
    correct = rng.random(500) < confidence**2
    expected = 0.0
    for number in range(BINS):
        low, high = number / BINS, (number + 1) / BINS
        inside = (confidence >= low) & ((confidence < high) | (number == BINS - 1))
        if inside.any():
            expected += inside.mean() * abs(confidence[inside].mean() - correct[inside].mean())
    assert calibration_error(confidence, correct) == pytest.approx(expected)
