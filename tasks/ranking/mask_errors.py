"""Which masks on record are probably wrong: the soft minimum over pixels of the probability that each is right."""

import numpy as np
from numpy.typing import NDArray

from tasks.ranking.patches import BAND, Floats, Map

TEMPERATURE = 0.1


def mask_quality(probabilities: Map, masks: NDArray[np.uint8], reviewed: NDArray[np.uint8] | None = None) -> Floats:
    """The quality of each class's mask of one image, float32 (C,) in [0, 1]: low where it is probably wrong.

    The mean of the pixels' self-confidence (p inside the mask, 1 - p outside), weighted by softmax of (1 - it) / 0.1,
    so that the worst pixels speak: the best of seven scores in Lad and Mueller (arXiv 2307.05080), where each class is
    a question of its own. probabilities: (C, H, W), calibrated, of members that saw neither the image nor its group.
    masks: (C, H, W), 0 outside. reviewed: (H, W), the pixels that a label is claimed of; None: all. NaN without any.

    Raises ValueError where the shapes differ.
    """
    if probabilities.shape != masks.shape or (reviewed is not None and reviewed.shape != masks.shape[1:]):
        sizes = [part.shape for part in (probabilities, masks, reviewed) if part is not None]
        raise ValueError(f"probabilities, masks and what is reviewed of them do not fit together: {sizes}")
    weighed, weights = np.zeros(len(masks)), np.zeros(len(masks))
    for top in range(0, masks.shape[1], BAND):
        lines = slice(top, top + BAND)
        p = probabilities[:, lines].astype(np.float32)
        right = np.where(masks[:, lines] != 0, p, 1 - p)
        # 1 - right is at most 1, so that e to the power of 10 is the largest of these.
        weight = np.exp((1 - right) / np.float32(TEMPERATURE))
        if reviewed is not None:
            weight *= reviewed[lines] != 0
        weighed += np.einsum("chw,chw->c", weight, right, dtype=np.float64)
        weights += weight.sum(axis=(1, 2), dtype=np.float64)
    quality = np.divide(weighed, weights, out=np.full(len(masks), np.nan), where=weights > 0)
    found: Floats = quality.astype(np.float32)
    return found


def doubts(quality: Floats, among: Floats | None = None) -> Floats:
    """How far each mask on record is to be doubted, float32 (N, C) in [0, 1], beside others of its class.

    `1 - q / median q`, 0 above the median: the worst pixels of a right mask are bad as well, along every border, so
    that only quality below the usual speaks against one. quality: (N, C) of `mask_quality`; NaN, where there is no mask
    on record, stays. among: (M, C) of the masks whose median is the usual; None: these. A class that has none there is
    not doubted.
    """
    others = quality if among is None else among
    known = ~np.isnan(others)
    usual = np.zeros(quality.shape[1])
    for column in np.flatnonzero(known.any(axis=0)).tolist():
        usual[column] = float(np.median(others[known[:, column], column]))
    below = np.maximum(usual - quality, 0)  # where nothing is usual, nothing is below it
    found: Floats = np.where(np.isnan(quality), np.nan, below / np.where(usual > 0, usual, 1)).astype(np.float32)
    return found
