"""Bright squares on dark noise, small enough to learn in a test."""

from __future__ import annotations

import numpy as np
import pytest

from backend.segmentation.config import SegmentationConfig
from backend.segmentation.crops import Examples

CLASSES = ("square", "left half of it")


@pytest.fixture(scope="session")
def config() -> SegmentationConfig:
    return SegmentationConfig(backbone="test_resnet", weights="scratch", crop=32, tile=64, folds=2, steps=3)


@pytest.fixture(scope="session")
def squares() -> Examples:
    """16 images of 40 x 48 pixels, wholly reviewed, of two classes of which one lies in the other."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 60, (16, 40, 48, 3), dtype=np.uint8)
    masks = np.zeros((16, 2, 40, 48), dtype=np.uint8)
    for image, mask in zip(images, masks, strict=True):
        top, left = rng.integers(2, 20, 2)
        image[top : top + 16, left : left + 16] += 150
        mask[0, top : top + 16, left : left + 16] = 1
        mask[1, top : top + 16, left : left + 8] = 1
    return Examples(images, masks, np.ones((16, 40, 48), dtype=np.uint8))
