"""Spherical k-means: clusters of directions, by cosine (Dhillon and Modha 2001), seeded by k-means++ (Arthur and
Vassilvitskii 2007), whose squared distance between unit rows is 2 (1 - cos)."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

ITERATIONS = 10
PER_CLUSTER = 32  # rows of the subsample for each cluster: enough for a mean, and 120,000 tasks cost seconds
BLOCK = 4096


def centres(embeddings: Floats, clusters: int, rng: np.random.Generator) -> Floats:
    """Unit centres (clusters, D) float32 of the directions of embeddings (N, D), found on a subsample.

    Rows that are zero or not finite have no direction and take no part. There are never more centres than sampled rows
    with a direction; a cluster that empties on the way keeps its last centre.
    """
    sample = rng.permutation(len(embeddings))[: clusters * PER_CLUSTER]
    points = directions(embeddings[np.sort(sample)])
    points = points[points.any(axis=1)]
    if not len(points):
        return points
    found = _spread_seeds(points, min(clusters, len(points)), rng)
    before = np.full(len(points), -1)
    for _ in range(ITERATIONS):
        nearest = (points @ found.T).argmax(axis=1)
        if (nearest == before).all():
            break
        before = nearest
        members = (nearest == np.arange(len(found))[:, None]).astype(np.float32)
        totals = members @ points
        found = np.where(totals.any(axis=1, keepdims=True), directions(totals), found)
    return found


def assign(embeddings: Floats, centres: Floats) -> NDArray[np.intp]:
    """The nearest centre's index for each row (N,); -1 for a row that is zero or not finite."""
    nearest = np.full(len(embeddings), -1, dtype=np.intp)
    if not len(centres):
        return nearest
    for start in range(0, len(embeddings), BLOCK):
        block = slice(start, start + BLOCK)
        points = directions(embeddings[block])
        nearest[block] = np.where(points.any(axis=1), (points @ centres.T).argmax(axis=1), -1)
    return nearest


def directions(embeddings: Floats) -> Floats:
    """Rows (N, D) scaled to length 1, float32; a row that is zero or not finite becomes zero."""
    rows = np.array(embeddings, dtype=np.float32)
    rows[~np.isfinite(rows).all(axis=1)] = 0
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    np.divide(rows, length, out=rows, where=length > 0)
    return rows


def _spread_seeds(points: Floats, clusters: int, rng: np.random.Generator) -> Floats:
    """Greedy k-means++: of a few rows drawn by their distance, the one that leaves the least distance in all."""
    seeds = np.empty((clusters, points.shape[1]), dtype=np.float32)
    distance = np.ones(len(points), dtype=np.float32)
    tries = 2 + int(np.log(clusters))
    for k in range(clusters):
        up_to = np.cumsum(distance, dtype=np.float64)
        drawn = np.searchsorted(up_to, rng.random(tries) * up_to[-1])
        drawn = np.minimum(drawn, len(points) - 1)
        left = np.minimum(distance[:, None], np.maximum(1 - points @ points[drawn].T, 0))
        best = int(left.sum(axis=0).argmin())
        seeds[k], distance = points[drawn[best]], left[:, best]
    return seeds
