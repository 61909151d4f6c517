"""Polygons beside what the angles from each pixel's middle add up to, and masks that come back from their outlines."""

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tasks.polygons import from_percent, mask_polygons, polygon_mask, to_percent

SHAPES = arrays.array_shapes(min_dims=2, max_dims=2, max_side=14)
MASKS = arrays.arrays(np.bool_, SHAPES)


def middles(height: int, width: int) -> Any:
    rows, columns = np.mgrid[:height, :width] + 0.5
    return np.stack([columns, rows], axis=-1)


def wound(points: Any, height: int, width: int) -> Any:
    """How often the polygon goes around each pixel's middle: by the angles under which its sides are seen."""
    to = points - middles(height, width)[:, :, None]
    angles = np.arctan2(to[..., 1], to[..., 0])
    steps = np.roll(angles, -1, axis=-1) - angles
    return np.round(((steps + np.pi) % (2 * np.pi) - np.pi).sum(axis=-1) / (2 * np.pi))


def smooth_shape(seed: int, side: int) -> Any:
    """A round shape with a wavy border, sometimes with a round hole, and the disc beside it."""
    rng = np.random.default_rng(seed)
    across, down = np.moveaxis(middles(side, side) / side - 0.5, -1, 0)
    radius, angle = np.hypot(across, down), np.arctan2(down, across)
    edge = 0.3 + sum(rng.uniform(0, 0.03) * np.cos(k * angle + rng.uniform(0, 6)) for k in range(1, 6))
    hole = np.hypot(across - 0.03, down) < 0.1
    return (radius < edge) & ~(hole if seed % 2 else False) | (np.hypot(across - 0.4, down - 0.4) < 0.07)


def iou(one: Any, other: Any) -> float:
    return float((one & other).sum() / (one | other).sum())


def drawn(polygons: list[Any], height: int, width: int) -> Any:
    return np.any([polygon_mask(points, height, width) for points in polygons] or [np.zeros((height, width))], axis=0)


@given(
    # A thousandth beside halves: no side passes through a pixel's middle, where either answer is right.
    st.lists(st.tuples(st.integers(-4, 14), st.integers(-4, 14)), min_size=1, max_size=9),
    st.integers(1, 9),
    st.integers(1, 9),
)
@example([(0, 0), (9, 0), (9, 9), (0, 9)], 9, 9)
@example([(0, 0), (9, 9), (9, 0), (0, 9)], 9, 9)  # it crosses itself
@example([(0, 0), (9, 0), (9, 9), (0, 9), (0, 0), (5, 0), (5, 5), (0, 5)], 9, 9)  # twice around
@example([(3, 3)], 9, 9)
def test_a_pixel_is_inside_when_the_polygon_goes_around_its_middle(
    corners: list[tuple[int, int]], height: int, width: int
) -> None:
    points = np.array(corners) + np.random.default_rng(len(corners)).uniform(-0.3, 0.3, (len(corners), 2))
    np.testing.assert_array_equal(polygon_mask(points, height, width), wound(points, height, width) != 0)


@given(MASKS)
@example(np.ones((1, 1), dtype=np.bool_))
@example(np.eye(6, dtype=np.bool_))
@example(np.indices((9, 9)).sum(axis=0) % 2 == 0)  # holes that touch at their corners
def test_outlines_give_back_the_mask(mask: Any) -> None:
    np.testing.assert_array_equal(drawn(mask_polygons(mask, near=0), *mask.shape), mask)


def test_an_island_in_a_lake_is_a_polygon_of_its_own() -> None:
    mask = np.zeros((11, 11), dtype=np.bool_)
    mask[1:10, 1:10], mask[3:8, 3:8], mask[5, 5] = True, False, True
    polygons = mask_polygons(mask)
    assert len(polygons) == 2
    np.testing.assert_array_equal(drawn(polygons, 11, 11), mask)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.sampled_from([48, 100, 256]))
def test_smooth_shapes_come_back_from_few_points(seed: int, side: int) -> None:
    mask = smooth_shape(seed, side)
    polygons = mask_polygons(mask)
    assert len(polygons) == 2
    assert iou(drawn(polygons, side, side), mask) >= 0.97
    assert sum(len(points) for points in polygons) <= side


@pytest.mark.parametrize("radius", [3, 5, 10, 20])
def test_a_drawn_disc_is_as_large_as_it_was_drawn(radius: int) -> None:
    angle = np.linspace(0, 2 * np.pi, 300, endpoint=False)
    points = np.array([32.3, 31.7]) + radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    disc = np.hypot(*np.moveaxis(middles(64, 64) - [32.3, 31.7], -1, 0)) <= radius
    assert iou(polygon_mask(points, 64, 64), disc) > 0.97


@given(MASKS, st.integers(1, 5000), st.integers(1, 5000))
def test_percent_and_back(mask: Any, height: int, width: int) -> None:
    for points in mask_polygons(mask):
        there = to_percent(points, *mask.shape)
        assert there.min() >= 0 and there.max() <= 100
        np.testing.assert_allclose(from_percent(there, *mask.shape), points)
    np.testing.assert_allclose(from_percent(np.array([[50.0, 25.0]]), height, width), [[width / 2, height / 4]])


def test_an_empty_mask_has_no_polygon() -> None:
    assert mask_polygons(np.zeros((4, 5), dtype=np.bool_)) == []
