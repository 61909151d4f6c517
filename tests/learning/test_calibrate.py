import numpy as np
import pytest
from scipy.special import expit, softmax

from backend.learning.calibrate import apply, temperature


def drawn(multiple: bool, heat: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits (3, 600, 4) of members that are `heat` times too sure, and labels drawn from the true ones."""
    rng = np.random.default_rng(seed)
    honest = rng.normal(size=(600, 4))
    if multiple:
        targets = rng.random((600, 4)) < expit(honest)
    else:
        targets = np.eye(4)[[rng.choice(4, p=row) for row in softmax(honest, axis=1)]]
    members = heat * (honest + 0.3 * rng.normal(size=(3, 600, 4)))
    return members.astype(np.float32), targets.astype(np.float32)


def likelihood(logits: np.ndarray, targets: np.ndarray, multiple: bool, t: float) -> float:
    mean = np.clip(apply(logits, t, multiple).mean(axis=0).astype(float), 1e-7, 1 - 1e-7)
    if multiple:
        return float(-np.mean(targets * np.log(mean) + (1 - targets) * np.log(1 - mean)))
    return float(-np.mean(np.log((mean * targets).sum(axis=1))))


@pytest.mark.parametrize("multiple", [False, True])
@pytest.mark.parametrize("heat", [0.4, 1.0, 3.0])
def test_temperature_is_the_best_of_a_fine_grid(multiple: bool, heat: float) -> None:
    logits, targets = drawn(multiple, heat, seed=4)
    grid = np.geomspace(0.1, 10, 800)
    best = grid[np.argmin([likelihood(logits, targets, multiple, t) for t in grid])]
    assert temperature(logits, targets, multiple) == pytest.approx(best, rel=0.01)


def test_rows_without_a_label_are_left_out() -> None:
    logits, targets = drawn(False, 2.0, seed=1)
    alone = temperature(logits[:, :300], targets[:300], False)
    targets[300:] = np.nan
    logits[:, 300:] = np.nan
    assert temperature(logits, targets, False) == pytest.approx(alone)


def test_too_little_to_go_by_changes_nothing() -> None:
    logits, targets = drawn(False, 3.0, seed=2)
    assert temperature(logits[:, :20], targets[:20], False) == 1.0
    assert temperature(logits, np.tile(np.eye(4, dtype=np.float32)[0], (600, 1)), False) == 1.0
    assert temperature(logits, np.full_like(targets, np.nan), False) == 1.0


def test_members_are_probabilities() -> None:
    logits, _ = drawn(False, 5.0, seed=3)
    found = apply(logits, 1.7, False)
    assert found.dtype == np.float32 and np.allclose(found, softmax(logits / 1.7, axis=2), atol=1e-6)
    assert np.allclose(found.sum(axis=2), 1, atol=1e-5)
    assert np.allclose(apply(logits, 1.7, True), expit(logits / 1.7), atol=1e-6)
