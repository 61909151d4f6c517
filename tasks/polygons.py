"""Polygons <-> masks, in pixels: (0, 0) is the upper left corner of the image, and pixel (row, column) has its middle
at (column + 0.5, row + 0.5). A pixel belongs to a polygon when its middle does.

OpenCV finds the outlines. Its `fillPoly` does not fill them: it also sets every pixel that the outline touches, which
makes a disc with a radius of 10 pixels 12 % larger.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Points = NDArray[np.float64]

NEAR = 0.5  # pixels by which a simplified outline may pass beside the mask's


def polygon_mask(points: Points, height: int, width: int) -> Bools:
    """The mask (H, W) of a closed polygon (N, 2) of x and y in pixels; what lies outside the image is cut off.

    By the rule of the canvas on which Label Studio draws it: inside is what the outline goes around, other than as
    often one way as the other (non-zero winding).
    """
    x, y = points.T - 0.5  # where rows and columns have their middles, at whole numbers
    next_x, next_y = np.roll(x, -1), np.roll(y, -1)
    upper, lower = (np.clip(np.ceil(edge), 0, height) for edge in (np.minimum(y, next_y), np.maximum(y, next_y)))
    crossed = (lower - upper).astype(int)
    side = np.repeat(np.arange(len(crossed)), crossed)
    row = upper[side].astype(int) + np.arange(len(side)) - np.repeat(np.cumsum(crossed) - crossed, crossed)
    at = x[side] + (row - y[side]) * (next_x[side] - x[side]) / (next_y[side] - y[side])
    column = np.clip(np.ceil(at), 0, width).astype(int)
    mask = np.zeros((height, width), dtype=np.bool_)
    if not len(row):
        return mask
    top, left, bottom, right = row.min(), column.min(), row.max() + 1, column.max() + 1
    turns = np.zeros((bottom - top, right - left), dtype=np.int32)
    np.add.at(turns, (row - top, column - left), np.sign(next_y - y)[side].astype(np.int32))
    inside = np.cumsum(turns, axis=1, out=turns)[:, : width - left] != 0
    mask[top:bottom, left : left + inside.shape[1]] = inside
    return mask


def mask_polygons(mask: Bools, near: float = NEAR) -> list[Points]:
    """The outlines of a mask (H, W): one polygon (N, 2) of x and y in pixels for each of its connected parts.

    Parts that touch at a corner are connected. A hole is part of its polygon's outline, which goes there and back on
    one line, since Label Studio's polygons have no holes. near: outlines are simplified (Douglas and Peucker) within
    so many pixels; at 0 `polygon_mask` gives back the mask, pixel by pixel.
    """
    height, width = mask.shape
    # Pixels, the edges between them and their corners as cells: on the edges lies the outline.
    cells = np.zeros((2 * height + 1, 2 * width + 1), dtype=np.uint8)
    cells[1::2, 1::2] = mask
    joined = cv2.dilate(cells, np.ones((3, 3), dtype=np.uint8))
    contours, hierarchy = cv2.findContours(joined, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return []
    outlines: dict[int, Points] = {}
    for index, (contour, parent) in enumerate(zip(contours, hierarchy[0, :, 3].tolist(), strict=True)):
        if parent < 0:
            outlines[index] = _outline(contour, near)
    for contour, parent in zip(contours, hierarchy[0, :, 3].tolist(), strict=True):
        if parent >= 0:
            outlines[parent] = _with_hole(outlines[parent], _outline(contour, near))
    return list(outlines.values())


def to_percent(points: Points, height: int, width: int) -> Points:
    """Points (N, 2) in pixels as Label Studio has them: in percent of the image's width and height."""
    return np.clip(np.divide(points, [width / 100, height / 100]), 0, 100)


def from_percent(points: Points, height: int, width: int) -> Points:
    """Points (N, 2) in percent of the image's width and height, in pixels."""
    return np.multiply(points, [width / 100, height / 100])


def _outline(contour: NDArray[np.generic], near: float) -> Points:
    """A contour of cells in pixels: through the middles of the edges, which leaves slopes straight."""
    cells = contour.reshape(-1, 2).astype(np.int32)
    cells = cells[cells.sum(axis=1) % 2 == 1]
    simple = cv2.approxPolyDP(cells[:, None], 2 * near, closed=True)[:, 0] if near else cells
    # Of less than four points would be left a line, or a triangle beside the middle of the only pixel.
    found: Points = (simple if len(simple) > 3 else cells) / 2
    return found


def _with_hole(outline: Points, hole: Points) -> Points:
    """The outline with a way to the hole, around it the other way round (as OpenCV finds it), and back."""
    nearest = int(np.square(outline - hole[0]).sum(axis=1).argmin())
    return np.concatenate([outline[: nearest + 1], hole, hole[:1], outline[nearest:]])
