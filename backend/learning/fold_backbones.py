"""The K backbones of a cross-fit, trained or found on disk; safe to kill at any moment."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backend.learning.arrays import Float32, Members, Pixels, Targets, Weights
from backend.learning.backbone import Backbone, Progress, WeightsError, create, embed, load, part_of, save
from backend.learning.config import LearningConfig
from backend.learning.crossfit import CrossFit, ensemble, labelled_rows
from backend.learning.folds import HOLDOUT
from backend.learning.training import train_backbone
from tasks.schema import Head


def train_backbones(
    pixels: Pixels,
    targets: Targets,
    folds: NDArray[np.int8],
    heads: Sequence[Head],
    config: LearningConfig,
    folder: Path,
    progress: Progress | None = None,
    row_weights: Weights | None = None,
) -> list[Backbone]:
    """K backbones, of which number k saw neither fold k nor the hold-out; or one that saw no label.

    The single one is what `frozen` gets where there are pretrained weights. Without, and in `full`, each
    fold's is trained here. Each is written to `folder` as backbone-<k>.safetensors when it is complete,
    and taken from there where it was made from the same labels, weights, folds and settings: a run that was killed
    is repeated with the same arguments, and ends with the same weights. `progress` counts batches over
    all folds. Raises HubUnreachable (see `backbone.with_reachable_weights`), WeightsError, ValueError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if config.mode == "frozen" and config.weights != "scratch":
        path = folder / "backbone-0.safetensors"
        made_from = _fingerprint(config, heads, {}, {}, np.zeros(0, dtype=np.int8))
        backbone = _found(path, made_from)
        if backbone is None:
            backbone = replace(create(config, config.seed), made_from=made_from)
            save(backbone, path)
        return [backbone]

    trainable = labelled_rows(targets) & (folds != HOLDOUT)
    made_from = _fingerprint(config, heads, targets, row_weights or {}, folds)
    backbones = []
    for fold in range(config.folds):
        path = folder / f"backbone-{fold}.safetensors"
        backbone = _found(path, made_from)
        if backbone is None:
            trained = train_backbone(
                pixels,
                targets,
                np.flatnonzero(trainable & (folds != fold)),
                heads,
                config,
                seed=config.seed * config.folds + fold,
                progress=part_of(progress, fold, config.folds),
                row_weights=row_weights,
            )
            save(replace(trained, made_from=made_from), path)
            # Read back, so that a resumed run and one that was never stopped go on from the same bytes.
            backbone = load(path)
        elif progress:
            progress(fold + 1, config.folds)
        backbones.append(backbone)
    return backbones


def load_backbones(folder: Path) -> list[Backbone]:
    """The backbones that `train_backbones` left in a folder, by fold. Raises WeightsError where there are none."""
    paths = sorted(folder.glob("backbone-*.safetensors"), key=lambda path: int(path.stem.split("-")[1]))
    if not paths:
        raise WeightsError(f"{folder} holds no backbone")
    return [load(path) for path in paths]


def embed_all(backbones: Sequence[Backbone], pixels: Pixels, progress: Progress | None = None) -> list[Float32]:
    """Embeddings (N, D) from each backbone."""
    return [
        embed(backbone, pixels, progress=part_of(progress, index, len(backbones)))
        for index, backbone in enumerate(backbones)
    ]


def predict_new(backbones: Sequence[Backbone], crossfit: CrossFit, pixels: Pixels) -> Members:
    """Calibrated probabilities, per head (K x S, n, C), of images that trained none of the members."""
    return ensemble(crossfit, embed_all(backbones, pixels))


def _found(path: Path, made_from: str) -> Backbone | None:
    """The backbone in a file that holds all of one made from the same inputs; else it has to be made again."""
    if not path.exists():
        return None
    try:
        backbone = load(path)
    except WeightsError:
        return None
    return backbone if backbone.made_from == made_from else None


def _fingerprint(
    config: LearningConfig, heads: Sequence[Head], targets: Targets, row_weights: Weights, folds: NDArray[np.int8]
) -> str:
    digest = hashlib.sha256()
    settings = [config.backbone, config.weights, config.image_size, config.folds, config.epochs, config.seed]
    about = [settings, [(head.name, head.kind, head.classes, head.weight) for head in heads]]
    digest.update(json.dumps(about, sort_keys=True).encode())
    for arrays in (targets, row_weights):
        for name in sorted(arrays):
            digest.update(name.encode() + np.ascontiguousarray(arrays[name]).tobytes())
    digest.update(folds.tobytes())
    return digest.hexdigest()
