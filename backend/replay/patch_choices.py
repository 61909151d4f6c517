"""Whose choice of patches a replay compares: ours, that of Uncertainty-Guided Annotation, and chance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from backend.replay.sites import Sites
from backend.segmentation.ensemble import Ensemble
from backend.segmentation.looking import pooled, shortlist
from backend.segmentation.predicting import Maps, predict
from tasks.mask_codec import Patch
from tasks.ranking.patch_baselines import foreground_random_order, paper_scores, random_order
from tasks.ranking.patches import Patches, Rows, candidates, highest

OFTEN = 4  # places to a patch's side that chance chooses from
MEASURE, PAPERS = "entropy", "cross_entropy"
INSIDE = 0.5

Chosen = list[tuple[int, Patch]]
Spent = Sequence[Sequence[Patch]]
Choice = Callable[[Ensemble, Sites, Spent, int, int, np.random.Generator], Chosen]


def hybrid(ensemble: Ensemble, sites: Sites, spent: Spent, count: int, tile: int, rng: np.random.Generator) -> Chosen:
    """As the live loop chooses (`looking`)."""
    offers = [
        shortlist(maps, ensemble.members[0], picture.image, sites.side, before)
        for maps, picture, before in zip(_maps(ensemble, sites, MEASURE, tile), sites.pool, spent, strict=True)
    ]
    return pooled(offers, count, sites.side)


def paper(ensemble: Ensemble, sites: Sites, spent: Spent, count: int, tile: int, rng: np.random.Generator) -> Chosen:
    """The rule of Uncertainty-Guided Annotation, on its own measure."""
    free = _free(sites, spent)
    scores = np.zeros(len(free.image), dtype=np.float32)
    for image, maps in enumerate(_maps(ensemble, sites, PAPERS, tile)):
        here = free.image == image
        scores[here] = paper_scores(maps.uncertainty, free.top[here], free.left[here], sites.side)
    return _placed(sites, free, highest(scores, free, count))


def random(ensemble: Ensemble, sites: Sites, spent: Spent, count: int, tile: int, rng: np.random.Generator) -> Chosen:
    """From anywhere."""
    free = _free(sites, spent)
    return _placed(sites, free, random_order(free, count, rng))


def foreground_random(
    ensemble: Ensemble, sites: Sites, spent: Spent, count: int, tile: int, rng: np.random.Generator
) -> Chosen:
    """From anywhere, or where foreground or its border is predicted."""
    free = _free(sites, spent)
    inside = [np.asarray((maps.probabilities > INSIDE).any(axis=0)) for maps in _maps(ensemble, sites, MEASURE, tile)]
    return _placed(sites, free, foreground_random_order(free, inside, count, rng))


CHOICES: Mapping[str, Choice] = {
    "hybrid": hybrid,
    "paper": paper,
    "random": random,
    "foreground-random": foreground_random,
}


def _maps(ensemble: Ensemble, sites: Sites, measure: str, tile: int) -> list[Maps]:
    return [predict(ensemble.members, ensemble.temperatures, one.image, measure, tile) for one in sites.pool]


def _free(sites: Sites, spent: Spent) -> Patches:
    """The patches that touch none of those reviewed before."""
    shapes = [(len(picture.image), picture.image.shape[1]) for picture in sites.pool]
    every = candidates(shapes, sites.side, sites.side // OFTEN)
    free = np.ones(len(every.image), dtype=np.bool_)
    for image, patches in enumerate(spent):
        for patch in patches:
            free &= ~every.overlapping(image, patch.y, patch.x)
    return Patches(every.image[free], every.top[free], every.left[free], sites.side)


def _placed(sites: Sites, patches: Patches, rows: Rows) -> Chosen:
    found = []
    for row in rows.tolist():
        image, y, x = int(patches.image[row]), int(patches.top[row]), int(patches.left[row])
        height, width = sites.pool[image].image.shape[:2]
        found.append((image, Patch(x, y, min(sites.side, width - x), min(sites.side, height - y))))
    return found
