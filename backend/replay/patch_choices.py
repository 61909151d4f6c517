"""Whose choice of patches a replay compares: ours, that of Uncertainty-Guided Annotation, and chance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from backend.replay.sites import Picture
from backend.segmentation.ensemble import Ensemble
from backend.segmentation.looking import pooled, shortlist
from backend.segmentation.predicting import Maps, predict
from tasks.mask_codec import Patch
from tasks.ranking.patch_baselines import foreground_random_order, paper_scores, random_order
from tasks.ranking.patches import Patches, Rows, candidates, highest

SIDE = 64
"""Pixels of a patch's side, in images whose longer side has at most `sites.LONGEST`."""
STRIDE = SIDE // 4
MEASURE, PAPERS = "entropy", "cross_entropy"
INSIDE = 0.5

Chosen = list[tuple[int, Patch]]
Spent = Sequence[Sequence[Patch]]
Choice = Callable[[Ensemble, Sequence[Picture], Spent, int, int, np.random.Generator], Chosen]


def hybrid(
    ensemble: Ensemble, pool: Sequence[Picture], spent: Spent, count: int, tile: int, rng: np.random.Generator
) -> Chosen:
    """As the live loop chooses (`looking`)."""
    offers = [
        shortlist(maps, ensemble.members[0], picture.image, SIDE, before)
        for maps, picture, before in zip(_maps(ensemble, pool, MEASURE, tile), pool, spent, strict=True)
    ]
    return pooled(offers, count, SIDE)


def paper(
    ensemble: Ensemble, pool: Sequence[Picture], spent: Spent, count: int, tile: int, rng: np.random.Generator
) -> Chosen:
    """The rule of Uncertainty-Guided Annotation, on its own measure."""
    free = _free(pool, spent)
    scores = np.zeros(len(free.image), dtype=np.float32)
    for image, maps in enumerate(_maps(ensemble, pool, PAPERS, tile)):
        here = free.image == image
        scores[here] = paper_scores(maps.uncertainty, free.top[here], free.left[here], SIDE)
    return _placed(pool, free, highest(scores, free, count))


def random(
    ensemble: Ensemble, pool: Sequence[Picture], spent: Spent, count: int, tile: int, rng: np.random.Generator
) -> Chosen:
    """From anywhere."""
    free = _free(pool, spent)
    return _placed(pool, free, random_order(free, count, rng))


def foreground_random(
    ensemble: Ensemble, pool: Sequence[Picture], spent: Spent, count: int, tile: int, rng: np.random.Generator
) -> Chosen:
    """From anywhere, or where foreground or its border is predicted."""
    free = _free(pool, spent)
    inside = [np.asarray((maps.probabilities > INSIDE).any(axis=0)) for maps in _maps(ensemble, pool, MEASURE, tile)]
    return _placed(pool, free, foreground_random_order(free, inside, count, rng))


CHOICES: Mapping[str, Choice] = {
    "hybrid": hybrid,
    "paper": paper,
    "random": random,
    "foreground-random": foreground_random,
}


def _maps(ensemble: Ensemble, pool: Sequence[Picture], measure: str, tile: int) -> list[Maps]:
    return [predict(ensemble.members, ensemble.temperatures, picture.image, measure, tile) for picture in pool]


def _free(pool: Sequence[Picture], spent: Spent) -> Patches:
    """The patches that touch none of those reviewed before."""
    every = candidates([(len(picture.image), picture.image.shape[1]) for picture in pool], SIDE, STRIDE)
    free = np.ones(len(every.image), dtype=np.bool_)
    for image, patches in enumerate(spent):
        for patch in patches:
            free &= ~every.overlapping(image, patch.y, patch.x)
    return Patches(every.image[free], every.top[free], every.left[free], SIDE)


def _placed(pool: Sequence[Picture], patches: Patches, rows: Rows) -> Chosen:
    found = []
    for row in rows.tolist():
        image, y, x = int(patches.image[row]), int(patches.top[row]), int(patches.left[row])
        height, width = pool[image].image.shape[:2]
        found.append((image, Patch(x, y, min(SIDE, width - x), min(SIDE, height - y))))
    return found
