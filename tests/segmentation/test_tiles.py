"""Blending beside a plain loop over pixels of the whole image."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.segmentation.tiles import blended

sizes = st.integers(1, 150)


def image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def whole(pixels: np.ndarray, tile: int, answer) -> np.ndarray:  # type: ignore[no-untyped-def]
    top_expected, parts = 0, []
    for top, rows in blended(pixels, tile, answer):
        assert top == top_expected
        top_expected += rows.shape[1]
        parts.append(rows)
    return np.concatenate(parts, axis=1)


@settings(deadline=None, max_examples=40)
@given(sizes, sizes, st.sampled_from([32, 64, 96]))
def test_an_answer_that_sees_single_pixels_comes_back_as_it_is(height: int, width: int, tile: int) -> None:
    pixels = image(height, width)

    def answer(tiles: np.ndarray) -> np.ndarray:
        assert tiles.shape[1] <= tile and tiles.shape[2] <= tile and not tiles.shape[1] % 32 and not tiles.shape[2] % 32
        return np.moveaxis(tiles, -1, 1).astype(np.float32)

    np.testing.assert_allclose(whole(pixels, tile, answer), np.moveaxis(pixels, -1, 0), rtol=1e-5)


@settings(deadline=None, max_examples=20)
@given(st.integers(64, 200), st.integers(64, 200))
def test_overlaps_are_the_weighted_mean_of_the_tiles(height: int, width: int) -> None:
    """Each tile answers with a constant of its own; the weights are found again by brute force."""
    tile, overlap, pixels = 64, 16, image(height, width)
    seen: list[np.ndarray] = []

    def answer(tiles: np.ndarray) -> np.ndarray:
        seen.extend(tiles)
        return np.stack([np.full((1, tile, tile), float(one.mean()), dtype=np.float32) for one in tiles])

    found = whole(pixels, tile, answer)[0]
    depth = np.minimum(np.arange(tile), np.arange(tile)[::-1]) + 1
    ramp = np.minimum(depth / (overlap + 1), 1)
    total, weights = np.zeros((height, width)), np.zeros((height, width))
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (tile, tile, 3))[:, :, 0]
    for one in seen:
        (top,), (left,) = np.nonzero(
            (windows[:, :, 0, 0] == one[0, 0]).all(axis=2) & (windows[:, :, 9, 9] == one[9, 9]).all(axis=2)
        )
        total[top : top + tile, left : left + tile] += one.mean() * np.outer(ramp, ramp)
        weights[top : top + tile, left : left + tile] += np.outer(ramp, ramp)
    np.testing.assert_allclose(found, total / weights, rtol=1e-5)


def test_memory_goes_by_the_tile_and_the_width_not_by_the_image() -> None:
    pixels = np.broadcast_to(np.uint8(7), (6000, 512, 3))  # itself takes no memory

    def answer(tiles: np.ndarray) -> np.ndarray:
        return tiles[..., :2].astype(np.float32).transpose(0, 3, 1, 2)

    tracemalloc.start()
    for _, rows in blended(pixels, 128, answer):
        assert rows.shape[2] == 512
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    strip = 3 * 128 * 512 * 4
    assert peak < 6 * strip  # the whole answer would be 47 strips


@pytest.mark.parametrize("shape", [(0, 5, 3), (5, 5), (5, 5, 4)])
def test_what_is_no_image_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\(H, W, 3\)"):
        next(blended(np.zeros(shape, dtype=np.uint8), 32, lambda tiles: tiles))  # type: ignore[arg-type,return-value]
