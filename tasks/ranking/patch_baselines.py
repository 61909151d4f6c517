"""What a choice of patches has to beat: the rule of Uncertainty-Guided Annotation, chance, and chance that knows where
the foreground is. Their scores go through `patches.choose`, without diversity."""

import numpy as np
from numpy.typing import NDArray

from tasks.ranking.patches import Floats, Map, Patches, Rows, border_of, means

SHARE_OF_MAXIMUM = 0.8
PER_PIXEL = 100


def paper_scores(uncertainty: Map, top: Rows, left: Rows, side: int) -> Floats:
    """The score (n,) of patches by Uncertainty-Guided Annotation (arXiv 2404.07208), as its code has it.

    100 x the pixels above 80 % of the patch's own maximum, plus the sum of the uncertainty in steps of 1/255. Relative
    to its own maximum a patch of next to no uncertainty can win: what is the same everywhere is all near its maximum.
    uncertainty: (H, W) in [0, 1], by `cross_entropy` in the paper.
    """
    levels = (np.asarray(uncertainty, dtype=np.float32) * 255).astype(np.uint8)
    found = np.empty(len(top), dtype=np.float32)
    for row, (line, column) in enumerate(zip(top.tolist(), left.tolist(), strict=True)):
        patch = levels[line : line + side, column : column + side]
        near = np.count_nonzero(patch > SHARE_OF_MAXIMUM * int(patch.max()))
        found[row] = PER_PIXEL * near + int(patch.sum(dtype=np.int64))
    return found


def random_order(patches: Patches, count: int, rng: np.random.Generator) -> Rows:
    """At most `count` patches drawn uniformly of those that overlap none drawn before."""
    even = np.ones(len(patches.image))
    return _drawn(patches, [even], count, rng)


def foreground_random_order(
    patches: Patches, foreground: list[NDArray[np.bool_]], count: int, rng: np.random.Generator
) -> Rows:
    """At most `count` patches, each from anywhere, by its foreground pixels, or by its border pixels, at equal odds.

    The foreground-aware random of nnActive (TMLR 2025), which active learning seldom beats. foreground: a mask (H, W)
    per image, any class: the predicted one, or, for a harder baseline, the true one. Where no foreground is left, the
    patch comes from anywhere.
    """
    inside, border = np.zeros(len(patches.image)), np.zeros(len(patches.image))
    for image, mask in enumerate(foreground):
        here = np.flatnonzero(patches.image == image)
        if len(here):
            places = (patches.top[here], patches.left[here], patches.side)
            inside[here] = means(mask.astype(np.float32), *places)
            border[here] = means(border_of(mask).astype(np.float32), *places)
    return _drawn(patches, [np.ones(len(patches.image)), inside, border], count, rng)


def _drawn(patches: Patches, odds: list[NDArray[np.float64]], count: int, rng: np.random.Generator) -> Rows:
    free = np.ones(len(patches.image), dtype=np.bool_)
    order: list[int] = []
    while len(order) < count and free.any():
        likely = odds[int(rng.integers(len(odds)))] * free
        if not likely.any():
            likely = free.astype(float)
        one = int(rng.choice(len(likely), p=likely / likely.sum()))
        order.append(one)
        free &= ~patches.overlapping(int(patches.image[one]), int(patches.top[one]), int(patches.left[one]))
    return np.array(order, dtype=np.intp)
