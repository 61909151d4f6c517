"""Disagreement with the label on record, beside a plain loop and cleanlab."""

import numpy as np
import pytest
from cleanlab.rank import get_label_quality_scores
from hypothesis import given
from hypothesis import strategies as st

from tasks.ranking.disagreement import disagreement
from tasks.schema import Head


def head(classes: int, kind: str = "single", ordinal: bool = False) -> Head:
    names = tuple(str(c) for c in range(classes))
    return Head("bom", "image", kind, names, 1.0, ordinal, None, None, required=True)


def slowly(p: list[float], label: int, ordinal: bool) -> float:
    far = [abs(k - label) / (len(p) - 1) if ordinal else float(k != label) for k in range(len(p))]
    return sum(share * distance for share, distance in zip(p, far, strict=True))


@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(2, 6), ordinal=st.booleans())
def test_single_choice_is_the_expected_distance(seed: int, classes: int, ordinal: bool) -> None:
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(classes, 0.7), 20).astype(np.float32)
    labels = rng.integers(classes, size=20)
    scores = disagreement(p, np.eye(classes, dtype=np.float32)[labels], head(classes, ordinal=ordinal))
    expected = [slowly(row.tolist(), int(y), ordinal) for row, y in zip(p, labels, strict=True)]
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, atol=1e-6)


@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(2, 6))
def test_single_choices_rank_as_cleanlab_does(seed: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(classes, 0.7), 20).astype(np.float32)
    labels = rng.integers(classes, size=20)
    quality = get_label_quality_scores(labels, p, method="self_confidence")
    scores = disagreement(p, np.eye(classes, dtype=np.float32)[labels], head(classes))
    np.testing.assert_allclose(scores, 1 - quality, atol=1e-5)


@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(1, 5))
def test_multiple_choice_is_the_mean_over_yes_and_no(seed: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    p = rng.random((20, classes), dtype=np.float32)
    ticked = rng.random((20, classes)) < 0.4
    scores = disagreement(p, ticked.astype(np.float32), head(classes, "multiple"))
    expected = [
        np.mean([slowly([1 - float(q), float(q)], int(y), False) for q, y in zip(row, ticks, strict=True)])
        for row, ticks in zip(p, ticked, strict=True)
    ]
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_an_ordinal_head_weighs_how_far_off_the_label_is() -> None:
    p = np.array([[0.3, 0.0, 0.0, 0.3, 0.4]] * 2, dtype=np.float32)
    targets = np.eye(5, dtype=np.float32)[[0, 3]]
    assert disagreement(p, targets, head(5, "rating", ordinal=True)) == pytest.approx([0.625, 0.325])
    assert disagreement(p, targets, head(5)) == pytest.approx([0.7, 0.7])


def test_the_order_of_classes_matters_to_ordinal_heads_only() -> None:
    rng = np.random.default_rng(0)
    p, targets = rng.dirichlet(np.ones(4), 50).astype(np.float32), np.eye(4, dtype=np.float32)[rng.integers(4, size=50)]
    tasks, classes = rng.permutation(50), rng.permutation(4)
    for kind in ("single", "multiple"):
        scores = disagreement(p, targets, head(4, kind))
        np.testing.assert_allclose(disagreement(p[:, classes], targets[:, classes], head(4, kind)), scores, atol=1e-6)
        np.testing.assert_array_equal(disagreement(p[tasks], targets[tasks], head(4, kind)), scores[tasks])


@pytest.mark.parametrize("kind", ["single", "multiple"])
def test_without_a_current_label_there_is_no_disagreement(kind: str) -> None:
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1]], dtype=np.float32)
    targets = np.array([[np.nan, np.nan], [0, 1], [np.nan, np.nan]], dtype=np.float32)
    assert disagreement(p, targets, head(2, kind)).tolist() == pytest.approx([0, 0.9, 0])
    assert disagreement(p, np.full((3, 2), np.nan, dtype=np.float32), head(2, kind)).tolist() == [0, 0, 0]


def test_nothing_ticked_is_a_label_of_a_multiple_choice_head_and_none_of_a_single_choice_head() -> None:
    p, blank = np.array([[0.9, 0.95]], dtype=np.float32), np.zeros((1, 2), dtype=np.float32)
    assert disagreement(p, blank, head(2, "multiple")) == pytest.approx([0.925])
    assert disagreement(p, blank, head(2)).tolist() == [0]


@pytest.mark.parametrize("kind", ["single", "multiple"])
def test_certain_probabilities_give_0_and_1(kind: str) -> None:
    p = np.array([[1, 0], [1, 0]], dtype=np.float32)
    assert disagreement(p, np.array([[1, 0], [0, 1]], dtype=np.float32), head(2, kind)).tolist() == [0, 1]


def test_shapes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"'bom'.*\(3, 2\).*\(3, 4\)"):
        disagreement(np.ones((3, 2), dtype=np.float32), np.ones((3, 4), dtype=np.float32), head(2))
    assert disagreement(np.ones((0, 2), dtype=np.float32), np.ones((0, 2), dtype=np.float32), head(2)).shape == (0,)
