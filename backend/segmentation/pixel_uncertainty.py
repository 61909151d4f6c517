"""How unsure an ensemble is of each pixel: the measures for tasks, taken pixel by pixel."""

from __future__ import annotations

import numpy as np

from backend.learning.arrays import Float32
from tasks.ranking.uncertainty import uncertainty


def pixel_uncertainty(measure: str, members: Float32) -> Float32:
    """Score pixels by the measure of that name: members (M, C, H, W) -> (H, W) float32 in [0, 1].

    members: calibrated probabilities; each class is a question of its own, and the score their mean. Raises as
    `tasks.ranking.uncertainty.uncertainty`.
    """
    count, classes, height, width = members.shape
    pixels = np.moveaxis(members, 1, -1).reshape(count, height * width, classes)
    return uncertainty(measure, pixels, multiple=True).reshape(height, width)
