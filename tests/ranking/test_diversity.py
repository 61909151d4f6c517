"""Both diversities beside brute force, and what each is for."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from tasks.ranking.diversity import BLOCK, ClusterCoverage, NearestReference
from tasks.ranking.hybrid import greedy


def cloud(n: int, features: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, features)).astype(np.float32)


def every(n: int) -> np.ndarray:
    return np.arange(n)


def test_nearest_is_scipys_cosine_distance_clipped_to_1() -> None:
    tasks, reviewed = cloud(200), cloud(30, seed=1)
    nearest = NearestReference(tasks, reviewed)
    nearest.refresh(every(200))
    np.testing.assert_allclose(nearest.values, cdist(tasks, reviewed, "cosine").min(axis=1).clip(0, 1), atol=2e-6)


def test_nearest_keeps_up_with_what_is_added_in_any_order_of_refreshing() -> None:
    tasks, reviewed = cloud(120), cloud(3, seed=1)
    nearest = NearestReference(tasks, reviewed)
    rng = np.random.default_rng(2)
    added: list[int] = []
    for row in rng.permutation(120)[:100].tolist():
        nearest.add(row)
        added.append(row)
        some = rng.permutation(120)[:7]
        nearest.refresh(some)
        references = np.concatenate([reviewed, tasks[added]])
        exact = cdist(tasks, references, "cosine").min(axis=1).clip(0, 1)
        np.testing.assert_allclose(nearest.values[some], exact[some], atol=1e-5)
        assert (nearest.values >= exact - 1e-5).all()
        assert not any(nearest.stale(int(fresh)) for fresh in some)


def test_nearest_in_several_blocks_of_rows_and_references() -> None:
    tasks, reviewed = cloud(BLOCK + 50, 4), cloud(2 * BLOCK + 3, 4, seed=1)
    nearest = NearestReference(tasks, reviewed)
    nearest.refresh(every(len(tasks)))
    np.testing.assert_allclose(nearest.values, cdist(tasks, reviewed, "cosine").min(axis=1).clip(0, 1), atol=2e-5)


def test_a_duplicate_has_no_diversity_at_all_whatever_its_length() -> None:
    tasks = cloud(50, 1280)
    nearest = NearestReference(np.concatenate([tasks, 3 * tasks]), tasks[:20])
    nearest.refresh(every(100))
    assert nearest.values[:20].tolist() == nearest.values[50:70].tolist() == [0] * 20
    assert nearest.values[20:50].min() > 0.5


@pytest.mark.parametrize("make", [NearestReference, ClusterCoverage])
def test_rows_without_a_direction_are_worth_nothing_and_cover_nothing(make: type) -> None:
    tasks = cloud(40)
    tasks[3], tasks[5], tasks[7] = 0, np.nan, np.inf
    diversity = make(tasks, tasks[[3, 5]])
    for row in (3, 5, 7):
        diversity.add(row)
    diversity.refresh(every(40))
    assert np.flatnonzero(diversity.values == 0).tolist() == [3, 5, 7]
    nothing = make(np.zeros((9, 4), dtype=np.float32), None)
    nothing.refresh(every(9))
    assert nothing.values.tolist() == [0] * 9


@pytest.mark.parametrize("make", [NearestReference, ClusterCoverage])
def test_no_tasks_and_no_references(make: type) -> None:
    assert make(cloud(0), None).values.shape == (0,)
    diversity = make(cloud(1), cloud(0))
    diversity.refresh(every(1))
    assert diversity.values.tolist() == [1]


def blobs(sizes: list[int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Tight clusters of these sizes about orthogonal axes, shuffled, and each row's cluster."""
    rng = np.random.default_rng(seed)
    cluster = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    tasks = 0.01 * rng.standard_normal((len(cluster), 2 * len(sizes))) + np.eye(2 * len(sizes))[cluster]
    return tasks.astype(np.float32), cluster


def test_coverage_is_mass_over_one_more_than_what_is_covered() -> None:
    tasks, cluster = blobs([40, 40, 40, 4])
    reviewed = np.concatenate([tasks[cluster == 0][:1], tasks[cluster == 1][:3]])
    coverage = ClusterCoverage(tasks, reviewed, clusters=4)
    coverage.add(int(np.flatnonzero(cluster == 0)[0]))
    coverage.add(int(np.flatnonzero(cluster == 3)[0]))
    coverage.refresh(every(len(tasks)))
    expected = np.array([1 / 3, 1 / 4, 1, 4 / 31 / 2])
    np.testing.assert_allclose(coverage.values, expected[cluster], rtol=1e-6)


def test_coverage_goes_once_through_the_clusters_before_it_returns_to_one() -> None:
    tasks, cluster = blobs([30] * 12)
    coverage = ClusterCoverage(tasks, clusters=12)
    order = []
    for _ in range(36):
        order.append(int(coverage.values.argmax()))
        coverage.add(order[-1])
        coverage.refresh(every(len(tasks)))
    assert [sorted(turn) for turn in cluster[order].reshape(3, 12).tolist()] == [list(range(12))] * 3


def test_coverage_buys_fewer_outliers_than_nearest() -> None:
    rng = np.random.default_rng(0)
    axes = rng.standard_normal((20, 64))
    tasks = axes[rng.integers(20, size=3000)] + 0.5 * rng.standard_normal((3000, 64))
    outlier = rng.random(3000) < 0.02
    tasks[outlier] = 3 * rng.standard_normal((outlier.sum(), 64))
    bought = {
        name: outlier[greedy(np.zeros(3000), tasks.astype(np.float32), 1.0, 50, diversity=name).order].mean()
        for name in ("nearest", "coverage")
    }
    assert bought["nearest"] > 0.5 and bought["coverage"] < 0.1
