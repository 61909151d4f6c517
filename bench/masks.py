"""Masks at the size of a large image: 2048 x 2048, with smooth regions and with speckles."""

from collections.abc import Iterator
from functools import partial

import numpy as np
from label_studio_sdk.converter import brush
from scipy.ndimage import gaussian_filter

from bench import Result, compare
from tasks.rle import decode_mask, encode_mask

SIDE, DISCS = 2048, 6
SPECKLES = 0.1  # of the area


def results(scale: float) -> Iterator[Result]:
    side = max(int(SIDE * scale), 64)
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side]
    discs = np.zeros((side, side), dtype=np.uint8)
    for _ in range(DISCS):
        centre_y, centre_x, radius = *rng.integers(0, side, 2), rng.integers(side // 20, side // 6)
        discs[(y - centre_y) ** 2 + (x - centre_x) ** 2 < radius**2] = 255
    noise = gaussian_filter(rng.random((side, side)), 4)
    speckles = np.where(noise > np.quantile(noise, 1 - SPECKLES), 255, 0).astype(np.uint8)
    for name, mask in (("six discs", discs), ("speckles", speckles)):
        rle = brush.mask2rle(mask)
        size = f"{side} x {side}, {len(rle)} integers"
        encode, decode = partial(encode_mask, mask), partial(decode_mask, rle, side, side)
        yield compare(f"encode {name}", size, encode, partial(brush.mask2rle, mask), "label-studio-sdk mask2rle")
        yield compare(f"decode {name}", size, decode, partial(brush.decode_rle, rle), "label-studio-sdk decode_rle")
