"""Train one U-Net on what was reviewed of the images, and nothing else."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from backend.learning import device as devices
from backend.learning.arrays import Float32, Rows
from backend.learning.augment import augment_with_masks
from backend.learning.backbone import Progress
from backend.segmentation.config import SegmentationConfig
from backend.segmentation.crops import Crop, Examples, Reviewed, reviewed_rows
from backend.segmentation.unet import UNet, create

BATCH = 8
WEIGHT_DECAY = 0.05
SCRATCH, PRETRAINED = 2e-3, 5e-4
"""Highest learning rates, from random weights and from an encoder's; what is trained on keeps the one it began with."""
SETTLING = 10
"""Batches, the last ones, that the means and variances of batch normalisation are taken from."""
SMOOTH = 1.0
"""Pixels added to both sides of the Dice fraction: a class that is nowhere in a batch has no slope of its own."""


def train(
    examples: Examples,
    rows: Rows,
    classes: Sequence[str],
    config: SegmentationConfig,
    seed: int,
    start: UNet | None = None,
    frequency: Float32 | None = None,
    progress: Progress | None = None,
) -> UNet:
    """Train for `config.steps` steps on crops of the given rows; only these are ever read.

    start: a member whose weights to go on from (warm start), which stays as it is; None: starting weights (refit).
    frequency: (N,) over all rows, how often a crop of a row is drawn relative to others; None: by how many crops its
    reviewed pixels fill, at least 1, so that of a large image more is seen. Repeatable on a CPU for one seed and number
    of threads. Raises what `create` raises, and ValueError where no row has a reviewed pixel, sizes within a row
    differ, or `start` knows other classes.
    """
    known = reviewed_rows(examples)
    rows = np.array([row for row in rows if known[row]], dtype=np.intp)
    if not len(rows):
        raise ValueError("none of the images has a reviewed pixel: there is nothing to train a U-Net on")
    if start is not None and start.classes != tuple(classes):
        raise ValueError(f"the weights to start from are of {', '.join(start.classes)}, not of {', '.join(classes)}")
    unet = create(config, classes, seed) if start is None else start.copied()
    reviewed = Reviewed(examples, rows)
    often = np.maximum(reviewed.area / config.crop**2, 1.0) if frequency is None else frequency[rows].astype(float)
    rng = np.random.default_rng(seed)
    drawn = rows[_drawn(often, config.steps * BATCH, rng)]
    chance = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        optimiser = torch.optim.AdamW(unet.model.parameters(), lr=1e-3, weight_decay=WEIGHT_DECAY)
        peak = PRETRAINED if unet.pretrained else SCRATCH
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, peak, total_steps=config.steps)
        unet.model.train()
        recent: deque[Tensor] = deque(maxlen=SETTLING)
        for step in range(config.steps):
            few = drawn[step * BATCH : (step + 1) * BATCH]
            images, masks, seen = _batch(unet, [reviewed.crop(int(row), config.crop, rng) for row in few], chance)
            recent.append(images)
            with devices.half_precision(unet.device):
                logits = unet.model(images)
            loss = masked_loss(logits.float(), masks, seen)
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(unet.model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            if progress:
                progress(step + 1, config.steps)
        _settle(unet, recent)
    if not all(bool(parameter.isfinite().all()) for parameter in unet.model.parameters()):
        raise FloatingPointError("training the U-Net diverged: its weights are no longer numbers")
    unet.model.eval()
    return unet


def masked_loss(logits: Tensor, masks: Tensor, reviewed: Tensor) -> Tensor:
    """Binary cross-entropy plus 1 - Dice, means over classes, of the reviewed pixels of a batch alone.

    logits and masks: (B, C, H, W), masks of 0 and 1. reviewed: (B, 1, H, W), of 0 and 1. Soft Dice over the whole
    batch, as nnU-Net has it (Isensee et al. 2021): of a crop without foreground alone it would say little.
    """
    each = functional.binary_cross_entropy_with_logits(logits, masks, reduction="none")
    entropy = (each * reviewed).sum() / (reviewed.sum() * masks.shape[1]).clamp(min=1)
    found, wanted = logits.sigmoid() * reviewed, masks * reviewed
    common = (found * wanted).sum(dim=(0, 2, 3))
    both = (found + wanted).sum(dim=(0, 2, 3))
    dice = (2 * common + SMOOTH) / (both + SMOOTH)
    return entropy + 1 - dice.mean()


def _settle(unet: UNet, batches: Iterable[Tensor]) -> None:
    """Take the means and variances of batch normalisation anew, from these batches.

    Running averages lag behind weights that still move, by more than a short training makes good ("precise" batch
    normalisation, Wu and Johnson 2021).
    """
    norms = [module for module in unet.model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
    with torch.no_grad(), devices.half_precision(unet.device):
        for images in batches:
            unet.model(images)
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum


def _batch(unet: UNet, crops: Sequence[Crop], chance: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Normalised images (B, 3, S, S), masks (B, C, S, S) and reviewed (B, 1, S, S), changed at random alike."""
    images = unet.normalised(torch.from_numpy(np.stack([crop.image for crop in crops])))
    inside = np.stack([np.concatenate([crop.masks, crop.reviewed[None]]) != 0 for crop in crops])
    images, moved = augment_with_masks(images, torch.from_numpy(inside).to(images.device).float(), chance)
    return images, moved[:, :-1], moved[:, -1:]


def _drawn(often: Float32, count: int, rng: np.random.Generator) -> Rows:
    """`count` indices, each as often as its share says, up to rounding, in random order (systematic sampling)."""
    ends = np.cumsum(often) / np.sum(often)
    places = (np.arange(count) + rng.random()) / count
    return rng.permutation(np.minimum(np.searchsorted(ends, places), len(often) - 1))
