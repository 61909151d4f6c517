"""One replay of corrected patches: a model of one site comes to another, where an oracle corrects what it is shown.

What chooses, trains and draws is what the live loop has: `looking`, `ensemble.cross_fit` and `predict`. A seed decides
the images, the folds and the training; all strategies go on from the same first model.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.learning.folds import assign
from backend.replay.patch_choices import CHOICES, INSIDE, Chosen
from backend.replay.sites import CROP, Bytes, Picture, Sites
from backend.segmentation.config import SegmentationConfig
from backend.segmentation.crops import Examples, frequency
from backend.segmentation.dice import dice, mean_dice
from backend.segmentation.ensemble import cross_fit
from backend.segmentation.predicting import predict
from tasks.mask_codec import Patch
from tasks.polygons import mask_polygons

Bools = NDArray[np.bool_]

COUNTS = (0, 1, 2, 5, 10, 20)
REFIT = "+refit"
"""Behind a choice's name: every model trains from starting weights, not on from the last."""
SMALL = SegmentationConfig(backbone="test_resnet", weights="scratch", crop=CROP, tile=256, folds=3, steps=120)
"""What a replay learns with: as little as shows the differences, so that two cores do many."""
CORNERS = 1.0
"""Pixels within which the outline of what has to be changed is simplified before its corners are counted."""


@dataclass(frozen=True)
class Moment:
    """What holds after so many patches. dice, source_dice: of the images to test on, mean over images and classes.

    clicks: corners of the simplified outlines of all that had to be changed, class by class, up to here.
    foreground_pixels: true ones in the corrected patches, of any class. seconds: of the processor, to choose and train.
    """

    patches: int
    dice: float
    source_dice: float
    clicks: int = 0
    foreground_pixels: int = 0
    seconds: float = 0.0


def replay_patches(
    sites: Sites, strategies: Sequence[str], budget: int, config: SegmentationConfig
) -> Iterator[tuple[str, Moment]]:
    """Every strategy's moments at the COUNTS up to `budget` patches, as far as the pool reaches.

    strategies: names of CHOICES, with or without REFIT. Raises KeyError for one that is none.
    """
    choices = {name: CHOICES[name.removesuffix(REFIT)] for name in strategies}
    first = _Loop(sites, config)
    for name, choose in choices.items():
        loop, rng = first.branch(), np.random.default_rng([config.seed, 1])
        yield name, loop.moment()
        for count in COUNTS[1:]:
            began = time.process_time()
            wanted = count - loop.patches
            chosen = [] if count > budget else choose(loop.ensemble, sites, loop.spent, wanted, config.tile, rng)
            if len(chosen) < wanted:
                break
            loop.correct(chosen)
            loop.train(warm=not name.endswith(REFIT))
            loop.seconds += time.process_time() - began
            yield name, loop.moment()


class _Loop:
    """An ensemble, and what was corrected for it."""

    def __init__(self, sites: Sites, config: SegmentationConfig) -> None:
        self.sites, self.config = sites, config
        everything = [*sites.learnt, *sites.pool]
        self.people = np.arange(len(everything)) >= len(sites.learnt)
        groups = [f"{later}/{picture.group}" for later, picture in zip(self.people, everything, strict=True)]
        self.folds = assign(groups, self.people.tolist(), {}, config.folds, 0.0, config.seed)
        self.reviewed = [
            np.full(picture.image.shape[:2], not later, dtype=np.uint8)
            for later, picture in zip(self.people, everything, strict=True)
        ]
        self.spent: list[list[Patch]] = [[] for _ in sites.pool]
        self.clicks = self.foreground_pixels = 0
        self.seconds = 0.0
        self.ensemble = cross_fit(self.examples, self.folds, sites.classes, config)

    @property
    def examples(self) -> Examples:
        everything = [*self.sites.learnt, *self.sites.pool]
        return Examples([one.image for one in everything], [one.masks for one in everything], self.reviewed)

    @property
    def patches(self) -> int:
        return sum(map(len, self.spent))

    def branch(self) -> _Loop:
        """The same moment, to go on from by itself."""
        found = copy.copy(self)
        found.reviewed = [one.copy() for one in self.reviewed]
        found.spent = [list(one) for one in self.spent]
        return found

    def correct(self, chosen: Chosen) -> None:
        """The oracle's answer: the truth inside the patches."""
        for image in {image for image, _ in chosen}:
            picture = self.sites.pool[image]
            said = self._drawn(picture)
            for patch in (patch for where, patch in chosen if where == image):
                window = (slice(patch.y, patch.y + patch.height), slice(patch.x, patch.x + patch.width))
                truth = picture.masks[(slice(None), *window)] != 0
                self.clicks += sum(corners(wrong) for wrong in truth != said[(slice(None), *window)])
                self.foreground_pixels += int(truth.any(axis=0).sum())
                self.reviewed[len(self.sites.learnt) + image][window] = 1
                self.spent[image].append(patch)

    def train(self, warm: bool) -> None:
        """The next ensemble, on from this one or from starting weights."""
        config = self.config.going_on() if warm else self.config
        often = frequency(self.reviewed, self.people)
        starts = self.ensemble.members if warm else None
        self.ensemble = cross_fit(self.examples, self.folds, self.sites.classes, config, starts, often)

    def moment(self) -> Moment:
        tested, kept = (self._score(pictures) for pictures in (self.sites.tested, self.sites.kept))
        return Moment(self.patches, tested, kept, self.clicks, self.foreground_pixels, self.seconds)

    def _score(self, pictures: Sequence[Picture]) -> float:
        scores = mean_dice(np.array([dice(self._drawn(one), one.masks) for one in pictures]))
        return float(np.nanmean(scores))

    def _drawn(self, picture: Picture) -> Bytes:
        """uint8 (C, H, W), 1 inside."""
        maps = predict(self.ensemble.members, self.ensemble.temperatures, picture.image, "entropy", self.config.tile)
        return (maps.probabilities >= INSIDE).astype(np.uint8)


def corners(wrong: Bools) -> int:
    """The clicks that a correction of pixels (H, W) takes, roughly: the corners of their simplified outlines."""
    return sum(len(outline) for outline in mask_polygons(wrong, CORNERS))
