"""Heads that go on beside heads fitted anew say the same as before, and the same as apart."""

from __future__ import annotations

import numpy as np
import pytest

from backend.learning.crossfit import CrossFit, ensemble
from backend.learning.heads import LinearHeads
from backend.learning.joined import join, select


def fit(seed: int, sizes: dict[str, int], folds: int = 3, seeds: int = 2, dimension: int = 16) -> CrossFit:
    rng = np.random.default_rng(seed)
    outputs = sum(sizes.values())
    return CrossFit(
        folds=tuple(
            LinearHeads(
                names=tuple(sizes),
                sizes=tuple(sizes.values()),
                mean=rng.normal(size=dimension).astype(np.float32),
                scale=rng.uniform(0.5, 2, size=dimension).astype(np.float32),
                weights=rng.normal(size=(seeds, outputs, dimension)).astype(np.float32),
                bias=rng.normal(size=(seeds, outputs)).astype(np.float32),
            )
            for _ in range(folds)
        ),
        temperatures={name: float(rng.uniform(0.5, 2)) for name in sizes},
        multiple={name: name == "foci" for name in sizes},
    )


@pytest.fixture
def embeddings() -> list[np.ndarray]:
    return [np.random.default_rng(7).normal(size=(40, 16)).astype(np.float32)] * 3


def test_joined_heads_say_what_they_said_apart(embeddings: list[np.ndarray]) -> None:
    kept, fitted = fit(0, {"bom": 2, "foci": 3}), fit(1, {"shape": 2, "margin": 4})
    joined, apart = ensemble(join(kept, fitted), embeddings), ensemble(kept, embeddings) | ensemble(fitted, embeddings)
    assert list(joined) == ["bom", "foci", "shape", "margin"]
    for name, said in apart.items():
        np.testing.assert_allclose(joined[name], said, atol=1e-5)
    for before, after in zip(kept.folds, join(kept, fitted).folds, strict=True):
        assert np.array_equal(before.weights, after.weights[:, :5]) and np.array_equal(before.bias, after.bias[:, :5])
        assert np.array_equal(before.mean, after.mean) and np.array_equal(before.scale, after.scale)


def test_selected_heads_follow_their_classes(embeddings: list[np.ndarray]) -> None:
    whole = fit(0, {"bom": 2, "foci": 3, "margin": 4})
    part = select(whole, {"margin": np.array([3, 0, 2, 1]), "bom": np.array([0, 1])})
    before, after = ensemble(whole, embeddings), ensemble(part, embeddings)
    assert set(after) == {"margin", "bom"}
    np.testing.assert_allclose(after["bom"], before["bom"], atol=1e-6)
    np.testing.assert_allclose(after["margin"], before["margin"][:, :, [3, 0, 2, 1]], atol=1e-6)


def test_a_head_is_there_once() -> None:
    with pytest.raises(ValueError, match="bom would be there twice"):
        join(fit(0, {"bom": 2}), fit(1, {"bom": 2}))
