import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, recall_score, roc_auc_score

from backend.evaluation.metrics import BINS, calibration_error, evaluate, resampled
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


def test_weighted_figures_equal_those_of_repeated_rows_and_scikit_learns() -> None:
    """A row of weight 3 is that row three times."""
    rng = np.random.default_rng(4)
    p = np.round(rng.dirichlet([1, 1, 1], 80), 1)  # with ties
    truth = rng.integers(0, 3, 80)
    weights = rng.integers(0, 4, (5, 80))
    found = resampled(head("single", ("a", "b", "c"), "b"), p.astype(np.float32), np.eye(3)[truth], weights)
    for row, counts in enumerate(weights):
        rows = np.repeat(np.arange(80), counts)
        y, said = truth[rows], p.astype(np.float32)[rows].argmax(axis=1)
        assert found["accuracy"][row] == pytest.approx(accuracy_score(y, said))
        assert found["macro_f1"][row] == pytest.approx(f1_score(y, said, average="macro"))
        assert found["auc"][row] == pytest.approx(roc_auc_score(y == 1, p[rows, 1]))
        assert found["sensitivity"][row] == pytest.approx(recall_score(y == 1, said == 1))
        assert found["specificity"][row] == pytest.approx(recall_score(y != 1, said != 1))
        confidence = p.astype(np.float32)[rows].max(axis=1).astype(np.float64)
        assert found["ece"][row] == pytest.approx(calibration_error(confidence, y == said))


def test_weighted_figures_of_a_multiple_choice_equal_scikit_learns() -> None:
    rng = np.random.default_rng(5)
    p, y = rng.random((60, 3)).astype(np.float32), rng.integers(0, 2, (60, 3))
    weights = rng.integers(0, 3, (4, 60))
    found = resampled(head("multiple", ("a", "b", "c")), p, y, weights)
    for row, counts in enumerate(weights):
        rows = np.repeat(np.arange(60), counts)
        truth, said = y[rows], p[rows] >= 0.5
        assert found["accuracy"][row] == pytest.approx(accuracy_score(truth.ravel(), said.ravel()))
        assert found["macro_f1"][row] == pytest.approx(f1_score(truth, said, average="macro", zero_division=0))
        assert found["auc"][row] == pytest.approx(roc_auc_score(truth, p[rows]))
        assert found["sensitivity"][row] == pytest.approx(recall_score(truth, said, average="macro"))


def test_a_set_of_weights_without_any_row_gives_no_figure() -> None:
    p, y = np.array([[0.9, 0.1], [0.2, 0.8]], dtype=np.float32), np.eye(2)
    found = resampled(head("single", ("a", "b"), "b"), p, y, np.array([[0, 0], [1, 1]]))
    assert all(np.isnan(values[0]) and not np.isnan(values[1]) for values in found.values())
