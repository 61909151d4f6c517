"""A fitted cross-fit on disk: one safetensors file with the heads of every fold and their temperatures."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from backend.learning.backbone import WeightsError, metadata, save_whole
from backend.learning.crossfit import CrossFit
from backend.learning.heads import LinearHeads

ARRAYS = ("mean", "scale", "weights", "bias")


def save_crossfit(fit: CrossFit, path: Path) -> None:
    """Write it at once or not at all."""
    tensors = {
        f"{fold}.{name}": torch.from_numpy(getattr(heads, name)).contiguous()
        for fold, heads in enumerate(fit.folds)
        for name in ARRAYS
    }
    about = {
        "names": fit.folds[0].names,
        "sizes": fit.folds[0].sizes,
        "temperatures": dict(fit.temperatures),
        "multiple": dict(fit.multiple),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_whole(tensors, {"crossfit": about}, path)  # one key: their order in the file is random


def temperatures(path: Path) -> dict[str, float]:
    """The calibration alone of what save_crossfit wrote: each head's temperature."""
    found: dict[str, float] = metadata(path)["crossfit"]["temperatures"]
    return found


def load_crossfit(path: Path) -> CrossFit:
    """Read what save_crossfit wrote. Raises WeightsError where the file is not one."""
    try:
        about, tensors = metadata(path)["crossfit"], load_file(path)
        names, sizes = tuple(about["names"]), tuple(about["sizes"])
        folds = len(tensors) // len(ARRAYS)
        parts = [{name: tensors[f"{fold}.{name}"].numpy() for name in ARRAYS} for fold in range(folds)]
    except (OSError, SafetensorError, KeyError) as error:
        raise WeightsError(f"{path} does not hold the heads of a cross-fit: {error}") from error
    return CrossFit(
        tuple(LinearHeads(names, sizes, **part) for part in parts), about["temperatures"], about["multiple"]
    )
