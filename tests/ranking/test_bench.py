"""The benchmarks run, and time what gives the same answer."""

import numpy as np

from bench.ranking import clustered, one_product_a_pick, results
from tasks.ranking.hybrid import greedy
from tasks.ranking.kmeans import directions


def test_each_benchmark_yields_its_seconds_and_the_ratio_to_its_peer() -> None:
    for result in results(scale=0.001):
        assert result.ours > 0
        assert (result.peer is None) == (result.ratio is None) == (result.against == "")


def test_ours_and_the_plain_greedy_select_the_same_batch() -> None:
    rng = np.random.default_rng(0)
    embeddings, base = clustered(3000, rng), 0.8 * rng.random(3000, dtype=np.float32) ** 3
    plain = one_product_a_pick(base, directions(embeddings), 0.2, 100)
    assert greedy(base, embeddings, 0.2, 100).order.tolist() == plain
