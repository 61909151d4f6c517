"""Which patches of the images an annotator should look at: uncertain, near what matters, and of every kind.

The score of a patch is absolute, so that patches of different images compare, and a patch of which nothing is
uncertain is worth nothing. A pixel's uncertainty counts by where it lies: most where foreground is predicted and at its
border, where a correction moves the mask; little in what is surely background, which is most of an image.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.ranking.kmeans import assign, centres, directions

Floats = NDArray[np.float32]
Map = NDArray[np.float16] | NDArray[np.float32]
Rows = NDArray[np.intp]

ANYWHERE, FOREGROUND, BORDER = 0.2, 0.4, 0.4
"""What a pixel's uncertainty counts: wherever it is, by its foreground probability, and by the border it is on."""
REACH = 2  # pixels from a border within which a pixel is on it
BAND = 256  # lines at a time
TYPICAL = 1 / 3
"""Share of a kind of patches, those nearest to its middle, that are typical of it."""
ALIKE = 5  # decimals of a cosine: patches that differ in none are as typical as each other
LEAST = 1e-6  # of attention: kinds without any go by their size


class Patches(NamedTuple):
    """N squares of `side` pixels: the index of the image each is in, and its first line and column."""

    image: Rows
    top: Rows
    left: Rows
    side: int

    def overlapping(self, image: int, top: int, left: int) -> NDArray[np.bool_]:
        """(N,): which share a pixel with the patch of the same side at that place."""
        near = (np.abs(self.top - top) < self.side) & (np.abs(self.left - left) < self.side)
        found: NDArray[np.bool_] = near & (self.image == image)
        return found


def candidates(shapes: Sequence[tuple[int, int]], side: int, stride: int) -> Patches:
    """The patches of images of shapes (H, W) to choose from: every `stride` pixels, and flush with the far edges.

    An image smaller than a patch has one, from its corner. Raises ValueError for a side or stride below 1.
    """
    if side < 1 or stride < 1:
        raise ValueError(f"patches are 1 pixel or more wide and apart, not {side} and {stride}")
    parts = []
    for image, (height, width) in enumerate(shapes):
        tops, lefts = (
            np.append(np.arange(0, max(far - side, 0), stride), max(far - side, 0)) for far in (height, width)
        )
        grid = np.stack(np.meshgrid(tops, lefts, indexing="ij"), axis=-1).reshape(-1, 2)
        parts.append(np.column_stack([np.full(len(grid), image), grid]))
    image, top, left = np.concatenate([np.zeros((0, 3)), *parts]).astype(np.intp).T
    return Patches(image, top, left, side)


def attention(uncertainty: Map, probabilities: Map) -> NDArray[np.float16]:
    """Each pixel's uncertainty (H, W) by what it counts where it lies, in [0, 1].

    uncertainty: (H, W) in [0, 1]. probabilities: (C, H, W) of each class; the foreground is what any class is
    likeliest to be. Borders are where the foreground probability changes within `REACH` pixels (the morphological
    gradient). Works in bands of lines, for maps that are mapped from files.
    """
    found = np.empty(uncertainty.shape, dtype=np.float16)
    for top in range(0, len(uncertainty), BAND):
        first, last = max(top - REACH, 0), top + BAND + REACH
        foreground = probabilities[:, first:last].max(axis=0).astype(np.float32)
        border = _spread(foreground, np.maximum) - _spread(foreground, np.minimum)
        counts = (ANYWHERE + FOREGROUND * foreground + BORDER * border)[top - first : top - first + BAND]
        found[top : top + BAND] = uncertainty[top : top + BAND] * counts
    return found


def means(values: Map, top: Rows, left: Rows, side: int) -> Floats:
    """The mean (n,) of a map (H, W) over patches; what lies beyond the image counts as 0."""
    if not len(top):
        return np.zeros(0, dtype=np.float32)
    lines, columns = np.union1d(top, top + side), np.union1d(left, left + side)
    # Sums between neighbouring edges of patches, and up to each edge: exact, and never the size of the map.
    sums = _up_to(_up_to(values, lines, axis=0), columns, axis=1)
    first, last = np.searchsorted(lines, top), np.searchsorted(lines, top + side)
    near, far = np.searchsorted(columns, left), np.searchsorted(columns, left + side)
    total = sums[last, far] - sums[first, far] - sums[last, near] + sums[first, near]
    share: Floats = np.clip(total / side**2, 0, None).astype(np.float32)
    return share


def choose(scores: Floats, patches: Patches, count: int, embeddings: Floats, reviewed: Floats | None = None) -> Rows:
    """At most `count` rows, in the order of choice, so that patches of every kind come that much is uncertain in.

    scores: (N,), the mean attention. Kinds are clusters of the embeddings (N, D), as many as are wanted and were
    reviewed before; reviewed: (R, D), the embeddings of those. One by one the kind with the most attention in all,
    divided by one more than what was chosen or reviewed of it, gives the patch of the highest score among its most
    typical ones that overlap none chosen before. Attention alone would pick the patches densest in foreground, which
    look alike; learnt from, they harm the rest (`docs/evidence-masks.md`). Fewer come back where no more fit.

    Raises ValueError where scores are not finite or the arrays do not fit together.
    """
    scores = _checked(scores, patches)
    if len(embeddings) != len(scores):
        raise ValueError(f"{len(embeddings)} embeddings for {len(scores)} patches")
    before = embeddings[:0] if reviewed is None else reviewed
    middles = centres(embeddings, count + len(before), np.random.default_rng(0))
    # What has no direction is a kind of its own, all of it equally typical.
    nearest = (assign(rows, middles) for rows in (embeddings, before))
    kind, kind_before = (np.where(near < 0, len(middles), near) for near in nearest)
    middles = np.concatenate([middles, np.zeros((1, embeddings.shape[1]), dtype=np.float32)])
    likeness = np.einsum("nd,nd->n", directions(embeddings), middles[kind]).round(ALIKE)
    attended = np.bincount(kind, scores + LEAST, minlength=len(middles))
    had = np.bincount(kind_before, minlength=len(middles))
    free = np.ones(len(scores), dtype=np.bool_)
    order: list[int] = []
    while len(order) < count and free.any():
        there = np.isin(np.arange(len(middles)), kind[free])
        one = int(np.where(there, attended / (1 + had), -1).argmax())
        rows = np.flatnonzero(free & (kind == one))
        typical = rows[np.lexsort((-scores[rows], -likeness[rows]))][: math.ceil(TYPICAL * len(rows))]
        order.append(int(typical[scores[typical].argmax()]))
        free &= ~_touched(patches, order[-1])
        had[one] += 1
    return np.array(order, dtype=np.intp)


def highest(scores: Floats, patches: Patches, count: int) -> Rows:
    """At most `count` rows, one by one the highest score (N,) of the patches that overlap none chosen before.

    Ties go to the lowest row. Raises ValueError where scores are not finite, or not one for each patch.
    """
    scores = _checked(scores, patches)
    free = np.ones(len(scores), dtype=np.bool_)
    order: list[int] = []
    while len(order) < count and free.any():
        order.append(int(np.where(free, scores, -np.inf).argmax()))
        free &= ~_touched(patches, order[-1])
    return np.array(order, dtype=np.intp)


def _checked(scores: Floats, patches: Patches) -> Floats:
    scores = np.asarray(scores, dtype=np.float32)
    if scores.shape != patches.image.shape or not np.isfinite(scores).all():
        raise ValueError(f"there are {len(patches.image)} patches and need as many finite scores, not {scores.shape}")
    return scores


def _touched(patches: Patches, row: int) -> NDArray[np.bool_]:
    return patches.overlapping(int(patches.image[row]), int(patches.top[row]), int(patches.left[row]))


def border_of(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels (H, W) within `REACH` of where a mask (H, W) begins or ends."""
    found: NDArray[np.bool_] = _spread(inside, np.maximum) & ~_spread(inside, np.minimum)
    return found


def _spread(values: NDArray, extreme: np.ufunc) -> NDArray:  # type: ignore[type-arg]
    """The maximum or minimum over the square of 2 REACH + 1 pixels around each, which ends at the image's edges."""
    for axis in (0, 1):
        spread, source = values.copy(), np.moveaxis(values, axis, 0)
        target = np.moveaxis(spread, axis, 0)
        for shift in range(1, REACH + 1):
            extreme(target[shift:], source[:-shift], out=target[shift:])
            extreme(target[:-shift], source[shift:], out=target[:-shift])
        values = spread
    return values


def _up_to(values: NDArray, edges: Rows, axis: int) -> NDArray[np.float64]:  # type: ignore[type-arg]
    """Sums along an axis from the first edge to each; edges beyond the end are at the end."""
    inside = edges[edges < values.shape[axis]]
    between = np.add.reduceat(values, inside, axis=axis, dtype=np.float64)
    upto = np.cumsum(between, axis=axis)
    before = np.zeros_like(np.take(upto, [0], axis=axis))
    sums = np.concatenate([before, upto], axis=axis)
    found: NDArray[np.float64] = np.take(sums, np.minimum(np.arange(len(edges)), len(inside)), axis=axis)
    return found
