"""Spherical k-means: it finds what is there, and is not thrown by what has no direction."""

import numpy as np
from sklearn.metrics import adjusted_rand_score

from tasks.ranking.kmeans import assign, centres, directions


def test_it_finds_tight_clusters() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(10, size=2000)
    points = (np.eye(16)[truth] + 0.05 * rng.standard_normal((2000, 16))).astype(np.float32)
    points *= rng.uniform(0.1, 10, (2000, 1)).astype(np.float32)  # length says nothing
    found = centres(points, 10, np.random.default_rng(1))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    assert adjusted_rand_score(truth, assign(points, found)) == 1


def test_assign_is_the_centre_of_highest_cosine_over_several_blocks() -> None:
    rng = np.random.default_rng(0)
    points, found = rng.standard_normal((9000, 5)).astype(np.float32), directions(rng.standard_normal((7, 5)))
    np.testing.assert_array_equal(assign(points, found), (directions(points).astype(float) @ found.T).argmax(axis=1))


def test_fewer_directions_than_clusters() -> None:
    points = np.array([[1, 0]] * 5 + [[0, 0], [np.nan, 1]], dtype=np.float32)
    found = centres(points, 7, np.random.default_rng(0))
    assert found.shape == (5, 2)
    assert assign(points, found)[-2:].tolist() == [-1, -1]
    assert centres(points[5:], 2, np.random.default_rng(0)).shape == (0, 2)


def test_the_same_generator_gives_the_same_centres() -> None:
    points = np.random.default_rng(0).standard_normal((500, 6)).astype(np.float32)
    first, second = (centres(points, 9, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
