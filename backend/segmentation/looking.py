"""Where an annotator should look: the patches of one image, or of many, that are worth a correction.

Patches of every kind, not the most uncertain alone: `tasks.ranking.patches.choose` says how, and why.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from backend.learning.arrays import Float32, Rows
from backend.segmentation.embedding import patch_embeddings
from backend.segmentation.predicting import Maps
from backend.segmentation.tiles import Image
from backend.segmentation.unet import UNet
from tasks.mask_codec import Patch
from tasks.ranking.patches import Patches, attention, candidates, choose, means

MOST = 512
"""Patches of an image that are compared; of an image with more, those of the highest attention."""


class Shortlist(NamedTuple):
    """The n patches of an image that are worth comparing: first lines and columns, scores (n,), embeddings (n, D).

    reviewed: embeddings (r, D) of the patches that were reviewed before.
    """

    shape: tuple[int, int]
    top: Rows
    left: Rows
    scores: Float32
    embeddings: Float32
    reviewed: Float32


def look(maps: Maps, member: UNet, image: Image, count: int, side: int, spent: Sequence[Patch] = ()) -> list[Patch]:
    """At most `count` patches of one image (H, W, 3): the one of the highest attention, then of every kind as `pooled`.

    A small spot that nothing else is like would belong to no kind of which much is uncertain.
    """
    offered = shortlist(maps, member, image, side, spent)
    if not count or not len(offered.top):
        return []
    best = int(offered.scores.argmax())
    apart = (np.abs(offered.top - offered.top[best]) >= side) | (np.abs(offered.left - offered.left[best]) >= side)
    rest = Shortlist(
        offered.shape,
        offered.top[apart],
        offered.left[apart],
        offered.scores[apart],
        offered.embeddings[apart],
        np.concatenate([offered.reviewed, offered.embeddings[[best]]]),
    )
    return [_patch(offered, best, side), *(patch for _, patch in pooled([rest], count - 1, side))]


def shortlist(maps: Maps, member: UNet, image: Image, side: int, spent: Sequence[Patch] = ()) -> Shortlist:
    """What one image offers to a choice of patches of `side` pixels, cut off where the image is smaller.

    member: whose features say how alike patches are, the same for all images of a choice. spent: what was reviewed of
    the image; patches that touch it are left out. The score of a patch is its mean attention, in [0, 1].
    """
    height, width = image.shape[:2]
    every = candidates([(height, width)], side, max(side // 2, 1))
    free = np.ones(len(every.top), dtype=np.bool_)
    for patch in spent:
        free &= ~(
            (every.top < patch.y + patch.height)
            & (patch.y < every.top + side)
            & (every.left < patch.x + patch.width)
            & (patch.x < every.left + side)
        )
    scores = means(attention(maps.uncertainty, maps.probabilities), every.top, every.left, side)
    there = np.flatnonzero(free)
    there = np.sort(there[np.argsort(-scores[there], kind="stable")][:MOST])
    top, left, scores = every.top[there], every.left[there], scores[there]
    before = np.array([[patch.y, patch.x] for patch in spent], dtype=np.intp).reshape(-1, 2)
    places = np.concatenate([np.column_stack([top, left]), before])
    embeddings = (
        patch_embeddings(member, image, places[:, 0], places[:, 1], side)
        if len(places)
        else np.zeros((0, 1), dtype=np.float32)
    )
    return Shortlist((height, width), top, left, scores, embeddings[: len(top)], embeddings[len(top) :])


def pooled(shortlists: Sequence[Shortlist], count: int, side: int) -> list[tuple[int, Patch]]:
    """At most `count` patches of many images, with the index of the image of each, in the order of choice.

    The score of a patch as it comes back is its mean attention.
    """
    offered = [one for one in shortlists if len(one.top)]
    if not offered:
        return []
    image = np.repeat(np.arange(len(shortlists)), [len(one.top) for one in shortlists])
    top, left = (np.concatenate([getattr(one, name) for one in shortlists]) for name in ("top", "left"))
    scores = np.concatenate([one.scores for one in shortlists])
    embeddings = np.concatenate([one.embeddings for one in offered])
    reviewed = np.concatenate([embeddings[:0], *(one.reviewed for one in shortlists if len(one.reviewed))])
    first = np.cumsum([0, *(len(one.top) for one in shortlists)])
    return [
        (int(image[row]), _patch(shortlists[image[row]], row - int(first[image[row]]), side))
        for row in choose(scores, Patches(image, top, left, side), count, embeddings, reviewed).tolist()
    ]


def _patch(offered: Shortlist, row: int, side: int) -> Patch:
    height, width = offered.shape
    y, x = int(offered.top[row]), int(offered.left[row])
    return Patch(x, y, min(side, width - x), min(side, height - y), float(offered.scores[row]))
