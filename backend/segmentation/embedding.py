"""What a patch looks like to a member: the vector that tells patches of one kind from those of another."""

from __future__ import annotations

import numpy as np
import torch

from backend.learning import device as devices
from backend.learning.arrays import Float32, Rows
from backend.segmentation.tiles import STRIDE, Image
from backend.segmentation.unet import UNet

BATCH = 64


def patch_embeddings(member: UNet, image: Image, top: Rows, left: Rows, side: int) -> Float32:
    """Embeddings float32 (n, D) of patches of an image, n of them, by their first lines and columns.

    The mean over the patch of the encoder's deepest features, each patch seen alone, so that what is around it does
    not make two alike. Patches are mirrored up to a multiple of 32 pixels, and where they reach beyond the image.
    """
    edge = -(-side // STRIDE) * STRIDE
    found = []
    for first in range(0, len(top), BATCH):
        cuts = []
        for line, column in zip(top[first : first + BATCH], left[first : first + BATCH], strict=True):
            cut = np.asarray(image[line : line + side, column : column + side], dtype=np.uint8)
            cuts.append(np.pad(cut, [(0, edge - cut.shape[0]), (0, edge - cut.shape[1]), (0, 0)], mode="symmetric"))
        with torch.inference_mode():
            patches = member.normalised(torch.from_numpy(np.stack(cuts)))
            with devices.half_precision(patches.device):
                deepest = member.encoder(patches)[-1]
            found.append(deepest.float().mean(dim=(2, 3)).cpu().numpy())
    return np.concatenate(found)
