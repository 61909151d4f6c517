"""Masks that a canvas draws at once: fewer runs, as little changed as that takes."""

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.rle import encode_mask

Bools = NDArray[np.bool_]

INTEGERS = 2000  # of a region's RLE: what a canvas draws at once
LEAST_DICE = 0.95  # between a mask and its smoothed one: below, it is another shape
RADII = (0.0, 0.7, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)  # pixels, each one some 1.4 times the one before
LESS = 0.98  # of the integers before: a larger radius that brings no more only takes shape away
MATTERS = 0.01  # of the mask's pixels: a part as large is not smoothed away


@dataclass(frozen=True)
class Smoothed:
    """A mask (H, W) and what smoothing made of it.

    dice: between it and the mask as it was. integers: of its RLE. radius: in pixels, 0 where nothing was changed.
    """

    mask: Bools
    dice: float
    integers: int
    radius: float


def smooth(mask: Bools, integers: int = INTEGERS) -> Smoothed:
    """The mask (H, W) with its border smoothed by the smallest radius with which its RLE has so few integers.

    Gaussian, then a threshold at a half. Parts that matter are put back as they were where they would be lost. Where
    no radius is enough, since the shape needs a run for each of its rows or would become another one (a Dice below
    LEAST_DICE), the last one that made it simpler.
    """
    found = Smoothed(mask, 1.0, _integers(mask), 0.0)
    for _, radius in pairwise(RADII):
        if found.integers <= integers:
            break
        candidate = _at(mask, radius)
        count, dice = _integers(candidate), _dice(mask, candidate)
        if dice < LEAST_DICE or count > LESS * found.integers:
            break
        found = Smoothed(candidate, dice, count, radius)
    return found


def _at(mask: Bools, radius: float) -> Bools:
    drawn = mask.astype(np.uint8) * 255
    # Beyond the border the image goes on as at it, or else what touches it would be rounded off there.
    smoothed: Bools = cv2.GaussianBlur(drawn, (0, 0), radius, borderType=cv2.BORDER_REPLICATE) >= 128
    _, part, about, _ = cv2.connectedComponentsWithStats(drawn)
    lost = about[:, cv2.CC_STAT_AREA] >= MATTERS * np.count_nonzero(mask)
    lost[0] = False  # what is outside
    lost[np.unique(part[smoothed])] = False
    return smoothed | lost[part] if lost.any() else smoothed


def _integers(mask: Bools) -> int:
    return len(encode_mask(mask.astype(np.uint8) * 255))


def _dice(one: Bools, other: Bools) -> float:
    both = np.count_nonzero(one) + np.count_nonzero(other)
    return 2 * np.count_nonzero(one & other) / both if both else 1.0
