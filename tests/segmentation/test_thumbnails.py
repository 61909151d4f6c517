"""Thumbnails beside means taken square by square."""

import numpy as np
import pytest

from backend.segmentation.thumbnails import thumbnail


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (23, 40, 3), (41, 9), (160, 161, 2)])
def test_each_pixel_is_the_mean_of_its_square(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    found = thumbnail(pixels, 10)
    side = int(np.ceil(max(shape[:2]) / 10))
    assert max(found.shape[:2]) <= 10 and found.dtype == np.float32
    for row, line in enumerate(found):
        for column, value in enumerate(line):
            square = pixels[row * side : (row + 1) * side, column * side : (column + 1) * side]
            np.testing.assert_allclose(value, square.astype(float).mean(axis=(0, 1)), rtol=1e-5)


def test_what_is_small_enough_stays_as_it_is() -> None:
    mask = np.random.default_rng(0).random((12, 160)) > 0.5
    np.testing.assert_array_equal(thumbnail(mask), mask)
