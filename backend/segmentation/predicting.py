"""What an ensemble says of an image of any size: where each class is, and how unsure it is, pixel by pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from scipy.special import expit

from backend.learning import device as devices
from backend.learning.arrays import Float32
from backend.segmentation.pixel_uncertainty import pixel_uncertainty
from backend.segmentation.tiles import Bytes, Image, blended
from backend.segmentation.unet import UNet

Half = NDArray[np.float16]


@dataclass(frozen=True)
class Maps:
    """Of one image: the members' mean probability of each class (C, H, W), and the uncertainty (H, W), in [0, 1]."""

    probabilities: Half
    uncertainty: Half


def predict(
    members: Sequence[UNet],
    temperatures: Float32,
    image: Image,
    measure: str,
    tile: int,
    folder: Path | None = None,
) -> Maps:
    """Calibrated probabilities and their uncertainty by `measure`, a name in uncertainty.MEASURES.

    temperatures: (C,), applied to each member before averaging. Members are reduced within each tile, and the maps
    fill row by row: memory goes by the tile and the width of the image, plus 2 (C + 1) bytes a pixel for the maps; with
    a `folder` these are files there (probabilities.npy, uncertainty.npy), mapped, and only the tiles are in memory.

    Raises ValueError for an image that is none or an unknown measure, NoSpread where the measure needs more members.
    """
    classes = len(members[0].classes)

    def answer(tiles: Bytes) -> Float32:
        logits = np.stack([tile_logits(member, tiles) for member in members])
        probabilities = expit(logits / temperatures.astype(np.float32)[:, None, None])
        unsure = [pixel_uncertainty(measure, probabilities[:, one]) for one in range(len(tiles))]
        return np.concatenate([probabilities.mean(axis=0), np.stack(unsure)[:, None]], axis=1)

    height, width = image.shape[:2]
    maps = Maps(
        _empty("probabilities", (classes, height, width), folder), _empty("uncertainty", (height, width), folder)
    )
    for top, rows in blended(image, tile, answer):
        maps.probabilities[:, top : top + rows.shape[1]] = rows[:-1]
        maps.uncertainty[top : top + rows.shape[1]] = rows[-1]
    return maps


def tile_logits(member: UNet, tiles: Bytes) -> Float32:
    """Logits float32 (B, C, H, W) of tiles uint8 (B, H, W, 3), H and W multiples of 32."""
    with torch.inference_mode():
        images = member.normalised(torch.from_numpy(tiles))
        with devices.half_precision(images.device):
            logits = member.model(images)
        found: Float32 = logits.float().cpu().numpy()
    return found


def _empty(name: str, shape: tuple[int, ...], folder: Path | None) -> Half:
    if folder is None:
        return np.empty(shape, dtype=np.float16)
    path = folder / f"{name}.npy"
    mapped: Half = open_memmap(path, mode="w+", dtype=np.float16, shape=shape)  # type: ignore[no-untyped-call]
    return mapped
