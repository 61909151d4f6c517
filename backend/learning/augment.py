"""Light random changes to a batch of images, of the kind a second scan of the same finding would show."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

SHIFT = 0.08
"""Largest shift, as a share of the image's side."""
SCALE = 0.15
LIGHT = 0.25
"""Largest change of brightness and of contrast, in standard deviations of normalised pixels."""


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Flip left and right, shift, scale and relight each of float (B, 3, H, W) normalised images at random.

    Not upside down: in ultrasound the depth is a measurement. One scale for both axes: the ratio of
    height to width is one too. `generator` lives on the CPU, so that every device draws the same changes.
    """
    affine = draw_places(len(images), generator)
    return relight(move(images, affine), generator)


def augment_with_masks(images: Tensor, masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """As `augment`, and masks float (B, C, H, W) moved alike: from the nearest pixel, 0 from outside the image."""
    affine = draw_places(len(images), generator)
    moved = move(masks, affine, interpolation="nearest", outside="zeros")
    return relight(move(images, affine), generator), moved


def draw_places(count: int, generator: torch.Generator) -> Tensor:
    """Random flips, shifts and scales: affine maps (count, 2, 3) in the coordinates of `affine_grid`."""
    zoom = 1 + SCALE * _draw(generator, count)
    flip = torch.where(_draw(generator, count) < 0, -1.0, 1.0)
    affine = torch.zeros((count, 2, 3))
    affine[:, 0, 0] = zoom * flip
    affine[:, 1, 1] = zoom
    affine[:, :, 2] = 2 * SHIFT * _draw(generator, count, 2)
    return affine


def move(images: Tensor, affine: Tensor, interpolation: str = "bilinear", outside: str = "border") -> Tensor:
    """Images float (B, C, H, W) under affine maps (B, 2, 3)."""
    grid = functional.affine_grid(affine.to(images.device), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode=interpolation, padding_mode=outside, align_corners=False)


def relight(images: Tensor, generator: torch.Generator) -> Tensor:
    """Change the brightness and the contrast of each of (B, C, H, W) images at random."""
    contrast = 1 + LIGHT * _draw(generator, len(images), 1, 1, 1)
    brightness = LIGHT * _draw(generator, len(images), 1, 1, 1)
    return images * contrast.to(images.device) + brightness.to(images.device)


def _draw(generator: torch.Generator, *shape: int) -> Tensor:
    """Uniform in [-1, 1)."""
    return 2 * torch.rand(shape, generator=generator) - 1
