"""What an ensemble makes of one image: masks, where to look, and how good a mask on record seems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.learning.arrays import Float32
from backend.segmentation.looking import look
from backend.segmentation.predicting import Maps, predict
from backend.segmentation.thumbnails import thumbnail
from backend.segmentation.tiles import Image
from backend.segmentation.unet import UNet
from tasks.mask_codec import Patch
from tasks.ranking.mask_errors import mask_quality
from tasks.ranking.uncertainty import NoSpread
from tasks.smoothing import smooth

Bools = NDArray[np.bool_]

SURE = 0.5  # probability from which on a pixel is inside


@dataclass(frozen=True)
class Drawn:
    """Of one image with C classes.

    masks: bool (C, H, W), smoothed. confidence: float32 (C,), the mean probability inside each mask; of an empty one,
    that nothing is there. patches: where to look, the most uncertain first. uncertainty: the mean of their scores, in
    [0, 1]. quality: float32 (C,) in [0, 1], how good each mask on record seems (`mask_errors.mask_quality`); NaN where
    there is none. map: float32 (h, w) in [0, 1], the uncertainty of the pixels, small.
    """

    masks: Bools
    confidence: Float32
    patches: tuple[Patch, ...]
    uncertainty: float
    quality: Float32
    map: Float32


def draw(
    members: Sequence[UNet],
    temperatures: Float32,
    image: Image,
    measure: str,
    tile: int,
    count: int,
    side: int,
    record: tuple[NDArray[np.uint8], NDArray[np.uint8]] | None = None,
) -> Drawn:
    """Predict and draw one image (H, W, 3), and choose `count` patches of `side` pixels to look at.

    measure: of pixel uncertainty; entropy stands in where it needs members that spread and there is one alone, as out
    of fold. record: masks (C, H, W) and what is claimed by them (H, W), to be judged by members that saw
    neither the image nor its group. Raises as `predict`.
    """
    try:
        maps = predict(members, temperatures, image, measure, tile)
    except NoSpread:
        maps = predict(members, temperatures, image, "entropy", tile)
    patches = look(maps, members[0], image, count, side)
    masks = np.stack([smooth(np.asarray(p >= SURE)).mask for p in maps.probabilities])
    quality: Float32 = np.full(len(masks), np.nan, dtype=np.float32)
    if record is not None:
        quality = mask_quality(maps.probabilities, *record)
    scores = [patch.score or 0.0 for patch in patches]
    unsure = float(np.mean(scores)) if scores else 0.0
    return Drawn(masks, _confidence(maps, masks), tuple(patches), unsure, quality, thumbnail(maps.uncertainty))


def _confidence(maps: Maps, masks: Bools) -> Float32:
    found = [
        float(p[mask].mean(dtype=np.float64)) if mask.any() else 1 - float(p.max())
        for p, mask in zip(maps.probabilities, masks, strict=True)
    ]
    return np.clip(np.array(found, dtype=np.float32), 0, 1)
