"""K U-Nets, number k of which never saw fold k: out-of-fold masks for labelled images, an ensemble for the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file

from backend.learning.arrays import Float32, Rows
from backend.learning.backbone import Progress, part_of, save_whole
from backend.learning.calibrate import temperature
from backend.learning.folds import HOLDOUT
from backend.learning.starting_weights import WeightsError
from backend.segmentation import unet as unets
from backend.segmentation.config import SegmentationConfig
from backend.segmentation.crops import Examples, Reviewed, reviewed_rows
from backend.segmentation.predicting import tile_logits
from backend.segmentation.tiles import Image, blended
from backend.segmentation.training import train
from backend.segmentation.unet import UNet

CALIBRATING = 20_000
"""Pixels that temperatures are fitted on, in all: neighbours say the same, and more would only take longer."""


@dataclass(frozen=True)
class Ensemble:
    """K members by fold, and a temperature per class (C,) that is applied to each before averaging."""

    members: tuple[UNet, ...]
    temperatures: Float32

    def unseen(self, fold: int, labelled: bool) -> tuple[UNet, ...]:
        """The members that saw neither an image of this fold nor its group: one where it is labelled, else all."""
        return (self.members[fold],) if labelled and fold != HOLDOUT else self.members


def cross_fit(
    examples: Examples,
    folds: NDArray[np.int8],
    classes: Sequence[str],
    config: SegmentationConfig,
    starts: Sequence[UNet] | None = None,
    frequency: Float32 | None = None,
    progress: Progress | None = None,
    folder: Path | None = None,
) -> Ensemble:
    """Train K members, number k without fold k and none on the hold-out, and fit the temperatures.

    folds: (N,), 0..K-1 or HOLDOUT, grouped (`folds.assign`). starts: K members to go on from, number k one that never
    saw fold k of the same, stable folds; None: refit. frequency as in `train`. Temperatures come from the out-of-fold
    logits of reviewed pixels. `progress` counts steps over all members. folder: where all is saved as it is made, and
    members that a killed run has left are found again. Raises as `train`, and ValueError where there are not K starts.
    """
    if starts is not None and len(starts) != config.folds:
        raise ValueError(f"{len(starts)} U-Nets to start from for {config.folds} folds: there must be one per fold")
    trainable = reviewed_rows(examples) & (folds != HOLDOUT)
    members = []
    for fold in range(config.folds):
        if folder is not None and _member(folder, fold).exists():
            members.append(unets.load(_member(folder, fold)))
            continue
        trained = train(
            examples,
            np.flatnonzero(trainable & (folds != fold)),
            classes,
            config,
            seed=config.seed * config.folds + fold,
            start=None if starts is None else starts[fold],
            frequency=frequency,
            progress=part_of(progress, fold, config.folds),
        )
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            unets.save(trained, _member(folder, fold))
        members.append(trained)
    made = Ensemble(tuple(members), temperatures(members, examples, folds, config))
    if folder is not None:
        save(made, folder)
    return made


def temperatures(
    members: Sequence[UNet], examples: Examples, folds: NDArray[np.int8], config: SegmentationConfig
) -> Float32:
    """Each class's temperature (C,), from out-of-fold logits of a sample of the reviewed pixels; 1 where there are few.

    Every labelled row gives as many pixels as any other, drawn at random from its reviewed ones.
    """
    rows = np.flatnonzero(reviewed_rows(examples) & (folds != HOLDOUT))
    reviewed = Reviewed(examples, rows)
    rng = np.random.default_rng(config.seed)
    classes = len(members[0].classes)
    logits: list[Float32] = []
    truth: list[Float32] = []
    for row in rows.tolist():
        pixels = reviewed.pixels(row, -(-CALIBRATING // len(rows)), rng)
        logits.append(logits_at(members[folds[row]], examples.images[row], pixels, config.tile))
        truth.append((examples.masks[row][:, pixels[0], pixels[1]] != 0).T.astype(np.float32))
    said, known = np.concatenate(logits)[None], np.concatenate(truth)
    found = [temperature(said[..., [one]], known[:, [one]], multiple=True) for one in range(classes)]
    return np.array(found, dtype=np.float32)


def logits_at(member: UNet, image: Image, pixels: tuple[Rows, Rows], tile: int) -> Float32:
    """Logits (n, C) of n pixels of an image of any size, given by line and column."""
    lines, columns = pixels
    found = np.empty((len(lines), len(member.classes)), dtype=np.float32)
    for top, rows in blended(image, tile, lambda tiles: tile_logits(member, tiles)):
        here = (lines >= top) & (lines < top + rows.shape[1])
        found[here] = rows[:, lines[here] - top, columns[here]].T
    return found


def save(ensemble: Ensemble, folder: Path) -> None:
    """Write the members as unet-<k>.safetensors where they are not there, and last the temperatures."""
    folder.mkdir(parents=True, exist_ok=True)
    for fold, member in enumerate(ensemble.members):
        if not _member(folder, fold).exists():
            unets.save(member, _member(folder, fold))
    tensors = {"temperatures": torch.from_numpy(ensemble.temperatures)}
    save_whole(tensors, {"members": len(ensemble.members)}, folder / "temperatures.safetensors")


def load(folder: Path) -> Ensemble:
    """An ensemble as `save` wrote it. Raises WeightsError where it is not there, or not all of it."""
    try:
        found = load_file(folder / "temperatures.safetensors")["temperatures"]
    except (OSError, SafetensorError, KeyError) as error:
        raise WeightsError(f"{folder} holds no ensemble of U-Nets: {error}") from error
    count = unets.metadata(folder / "temperatures.safetensors")["members"]
    return Ensemble(tuple(unets.load(_member(folder, fold)) for fold in range(count)), found.numpy())


def _member(folder: Path, fold: int) -> Path:
    return folder / f"unet-{fold}.safetensors"
