"""What a replay compares: names for settings of the loop."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.acquisition import Pool

STRATEGIES: dict[str, dict[str, Any]] = {
    "hybrid": {"preset": "auto"},
    "document": {"preset": "document"},
    "find-errors": {"preset": "find-errors"},
    "entropy": {"preset": "1/0/0", "uncertainty": "entropy"},
    "margin": {"preset": "1/0/0", "uncertainty": "margin"},
    "bald": {"preset": "1/0/0", "uncertainty": "bald"},
    "disagreement": {"preset": "0/1/0"},
    "coverage": {"preset": "0/0/1"},
    "queue": {"preset": "auto", "random_slots": True},  # the hybrid as it is served, with control arm and hold-out
    "kept": {"preset": "auto", "corrected_share": 1.0},  # the hybrid, corrections or not on the backbones it began with
    "random": {"acquisition": "backend.replay.strategies:chance"},
}


def chance(pool: Pool) -> NDArray[np.float32]:
    """A score drawn for each task; the same for the same pool."""
    rng = np.random.default_rng([len(pool.ids), int(pool.ids.sum()), round(1e6 * float(pool.uncertainty.sum()))])
    return rng.random(len(pool.ids), dtype=np.float32)
