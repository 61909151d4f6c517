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
    count = len(images)

    def draw(*shape: int) -> Tensor:
        return 2 * torch.rand((count, *shape), generator=generator) - 1

    zoom = 1 + SCALE * draw()
    flip = torch.where(draw() < 0, -1.0, 1.0)
    affine = torch.zeros((count, 2, 3))
    affine[:, 0, 0] = zoom * flip
    affine[:, 1, 1] = zoom
    affine[:, :, 2] = 2 * SHIFT * draw(2)
    contrast = 1 + LIGHT * draw(1, 1, 1)
    brightness = LIGHT * draw(1, 1, 1)

    grid = functional.affine_grid(affine.to(images.device), list(images.shape), align_corners=False)
    moved = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return moved * contrast.to(images.device) + brightness.to(images.device)
