"""Where an annotator should look: the patches of one image, or of many, that are worth a correction."""

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

DIVERSITY = 1.0
"""What being unlike all patches chosen or reviewed before is worth, beside the mean attention of a patch.

Attention alone picks the patches densest in foreground, which look alike; what is learnt of them alone harms the rest.
"""
SPARE = 8
"""Patches that are embedded for each one wanted: those of the highest attention, none overlapping another."""


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
    """At most `count` patches of one image (H, W, 3), the first the most worth a look; as `pooled` for one image."""
    return [patch for _, patch in pooled([shortlist(maps, member, image, count, side, spent)], count, side)]


def shortlist(maps: Maps, member: UNet, image: Image, count: int, side: int, spent: Sequence[Patch] = ()) -> Shortlist:
    """What one image offers to a choice of `count` patches of `side` pixels, cut off where the image is smaller.

    member: whose features say how alike patches are, the same for all images of a choice. spent: what was reviewed of
    the image; patches that touch it are left out. The score of a patch is its mean attention, in [0, 1].
    """
    height, width = image.shape[:2]
    every = candidates([(height, width)], side, max(side // 4, 1))
    free = np.ones(len(every.top), dtype=np.bool_)
    for patch in spent:
        free &= ~(
            (every.top < patch.y + patch.height)
            & (patch.y < every.top + side)
            & (every.left < patch.x + patch.width)
            & (patch.x < every.left + side)
        )
    there = Patches(every.image[free], every.top[free], every.left[free], side)
    scores = means(attention(maps.uncertainty, maps.probabilities), there.top, there.left, side)
    best = choose(scores, there, count * SPARE).order
    top, left = (
        np.array([*ours[best], *before], dtype=np.intp)
        for ours, before in ((there.top, [patch.y for patch in spent]), (there.left, [patch.x for patch in spent]))
    )
    embeddings = patch_embeddings(member, image, top, left, side) if len(top) else np.zeros((0, 1), dtype=np.float32)
    return Shortlist(
        (height, width),
        top[: len(best)],
        left[: len(best)],
        scores[best],
        embeddings[: len(best)],
        embeddings[len(best) :],
    )


def pooled(shortlists: Sequence[Shortlist], count: int, side: int) -> list[tuple[int, Patch]]:
    """At most `count` patches of many images, with the index of the image of each, in the order of choice.

    One by one the highest score plus `DIVERSITY` times how unlike the patch is to those chosen, and to those reviewed
    before in any of the images. The score of a patch as it comes back is its mean attention alone.
    """
    offered = [one for one in shortlists if len(one.top)]
    if not offered:
        return []
    image = np.repeat(np.arange(len(shortlists)), [len(one.top) for one in shortlists])
    top, left = (np.concatenate([getattr(one, name) for one in shortlists]) for name in ("top", "left"))
    scores = np.concatenate([one.scores for one in shortlists])
    embeddings = np.concatenate([one.embeddings for one in offered])
    reviewed = np.concatenate([embeddings[:0], *(one.reviewed for one in shortlists if len(one.reviewed))])
    chosen = choose(scores, Patches(image, top, left, side), count, embeddings, DIVERSITY, reviewed).order
    found = []
    for row in chosen.tolist():
        height, width = shortlists[image[row]].shape
        y, x = int(top[row]), int(left[row])
        found.append((int(image[row]), Patch(x, y, min(side, width - x), min(side, height - y), float(scores[row]))))
    return found
