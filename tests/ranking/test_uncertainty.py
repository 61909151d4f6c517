"""Uncertainty measures beside plain Python loops and scikit-activeml."""

from math import log

import numpy as np
import pytest
from scipy.stats import entropy as stats_entropy
from skactiveml.pool import average_kl_divergence, uncertainty_scores

from tasks.ranking.uncertainty import MEASURES, NoSpread, uncertainty

NAMES = sorted(MEASURES)


def single(members: int, tasks: int, classes: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(classes, 0.5), (members, tasks)).astype(np.float32)


def multiple(members: int, tasks: int, classes: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((members, tasks, classes), dtype=np.float32)


def slowly(name: str, members: list[list[float]]) -> float:
    """One task by the formulas of DESIGN.md, in floats: members are M lists of C probabilities."""
    count, classes = len(members), len(members[0])
    mean = [sum(p[c] for p in members) / count for c in range(classes)]

    def entropy(p: list[float]) -> float:
        return -sum(q * log(q) for q in p if q > 0)

    if name == "least_confident":
        return (1 - max(mean)) * classes / (classes - 1)
    if name == "margin":
        first, second = sorted(mean, reverse=True)[:2]
        return 1 - (first - second)
    if name == "entropy":
        return entropy(mean) / log(classes)
    if name == "variance":
        spread = sum((p[c] - mean[c]) ** 2 for p in members for c in range(classes)) / count
        return spread * classes / (classes - 1)
    if name == "cross_entropy":
        surprise = [-sum(mean[c] * log(max(p[c], 1e-8)) for c in range(classes)) for p in members]
        return min(sum(surprise) / count, 4) / 4
    return (entropy(mean) - sum(map(entropy, members)) / count) / log(classes)


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("name", NAMES)
def test_single_choice_is_the_formula(name: str, classes: int) -> None:
    members = single(5, 40, classes)
    expected = [slowly(name, members[:, task].astype(float).tolist()) for task in range(40)]
    scores = uncertainty(name, members, multiple=False)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, atol=2e-6)


@pytest.mark.parametrize("classes", [1, 2, 4])
@pytest.mark.parametrize("name", NAMES)
def test_multiple_choice_is_the_mean_over_yes_and_no(name: str, classes: int) -> None:
    members = multiple(4, 30, classes).astype(float)
    expected = [
        np.mean([slowly(name, [[1 - p, p] for p in members[:, task, c].tolist()]) for c in range(classes)])
        for task in range(30)
    ]
    np.testing.assert_allclose(uncertainty(name, members.astype(np.float32), multiple=True), expected, atol=2e-6)


@pytest.mark.parametrize(
    ("ours", "theirs", "scale"),
    [
        ("least_confident", "least_confident", 4 / 3),
        ("margin", "margin_sampling", 1),
        ("entropy", "entropy", 1 / log(4)),
    ],
)
def test_scikit_activeml_agrees_on_the_mean(ours: str, theirs: str, scale: float) -> None:
    members = single(1, 500, 4)
    expected = uncertainty_scores(members[0].astype(float), method=theirs) * scale
    np.testing.assert_allclose(uncertainty(ours, members, multiple=False), expected, atol=2e-6)


def test_mutual_information_is_the_members_mean_divergence_from_their_mean() -> None:
    members = single(6, 500, 3)
    expected = average_kl_divergence(members.astype(float)) / log(3)
    np.testing.assert_allclose(uncertainty("bald", members, multiple=False), expected, atol=1e-5)


def test_cross_entropy_is_entropy_and_the_mean_divergence_of_the_mean_from_the_members() -> None:
    members = np.clip(single(5, 500, 3).astype(float), 1e-3, None)
    members /= members.sum(axis=2, keepdims=True)
    mean = members.mean(axis=0)
    expected = (stats_entropy(mean, axis=1) + stats_entropy(mean[None], members, axis=2).mean(axis=0)) / 4
    found = uncertainty("cross_entropy", members.astype(np.float32), multiple=False)
    np.testing.assert_allclose(found, np.minimum(expected, 1), atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("is_multiple", [False, True])
def test_order_of_tasks_and_classes_does_not_matter(name: str, is_multiple: bool) -> None:
    members = multiple(3, 50, 4) if is_multiple else single(3, 50, 4)
    rng = np.random.default_rng(1)
    tasks, classes = rng.permutation(50), rng.permutation(4)
    scores = uncertainty(name, members, is_multiple)
    np.testing.assert_allclose(uncertainty(name, members[:, tasks], is_multiple), scores[tasks], atol=1e-6)
    np.testing.assert_allclose(uncertainty(name, members[..., classes], is_multiple), scores, atol=1e-6)


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("name", NAMES)
def test_the_extremes_are_0_and_1(name: str, classes: int) -> None:
    sure = np.tile(np.eye(classes, dtype=np.float32)[:1], (classes, 1, 1))
    assert uncertainty(name, sure, multiple=False) == pytest.approx([0], abs=1e-6)
    if name in ("bald", "mutual_information", "variance", "cross_entropy"):
        unsure = np.eye(classes, dtype=np.float32)[:, None, :]  # every member is sure of another class
    else:
        unsure = np.full((1, 1, classes), 1 / classes, dtype=np.float32)
    assert uncertainty(name, unsure, multiple=False) == pytest.approx([1], abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_probabilities_a_rounding_outside_stay_in_range(name: str) -> None:
    members = np.array([[[1.0000001, -1e-7]], [[0, 1]]], dtype=np.float32)
    for is_multiple in (False, True):
        scores = uncertainty(name, members, is_multiple)
        assert np.isfinite(scores).all() and scores.min() >= 0 and scores.max() <= 1


@pytest.mark.parametrize("name", NAMES)
def test_no_tasks_and_one_class_have_a_score(name: str) -> None:
    assert uncertainty(name, single(2, 0, 3), multiple=False).shape == (0,)
    assert uncertainty(name, np.ones((2, 4, 1), dtype=np.float32), multiple=False).tolist() == [0] * 4


@pytest.mark.parametrize("name", ["bald", "mutual_information", "variance"])
def test_one_member_has_no_spread(name: str) -> None:
    with pytest.raises(NoSpread, match="head seeds"):
        uncertainty(name, single(1, 3, 2), multiple=False)


def test_an_unknown_measure_and_a_wrong_shape_are_named() -> None:
    with pytest.raises(ValueError, match=r"'entrpy'.*entropy"):
        uncertainty("entrpy", single(1, 3, 2), multiple=False)
    with pytest.raises(ValueError, match=r"\(3, 2\)"):
        uncertainty("entropy", single(1, 3, 2)[0], multiple=False)
