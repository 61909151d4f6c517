"""A U-Net on a timm encoder (Ronneberger et al. 2015), made, saved and loaded.

Its classes are independent yes or no questions, each a sigmoid of its own: Label Studio lets regions of different
labels lie over each other, a region may carry several labels, and background needs no class.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from backend.learning.backbone import (
    HubUnreachable,
    check_name,
    from_hub,
    metadata,
    normalised,
    placed,
    save_whole,
)
from backend.learning.starting_weights import WeightsError, read_weights
from backend.segmentation.config import SegmentationConfig

DECODER = (256, 128, 64, 32, 16)
"""Channels of the decoder at most, from the deepest scale up: the defaults of segmentation-models-pytorch."""
ENCODER = "encoder.model."  # where the timm network is in that of segmentation-models-pytorch


@dataclass(frozen=True)
class UNet:
    """One member of the ensemble.

    `model` maps float (B, 3, H, W), normalised by `mean` and `std` of pixels in [0, 1], H and W multiples of 32, to
    the logits (B, C, H, W) of the `classes`. `decoder`: its channels, from the deepest scale up. `pretrained`: whether
    the encoder started from weights. `made_from`: which inputs it was trained on, empty where none.
    """

    name: str
    classes: tuple[str, ...]
    decoder: tuple[int, ...]
    model: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pretrained: bool
    made_from: str = ""

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def encoder(self) -> nn.Module:
        """Images to their features at every scale, the deepest last."""
        return self.model.get_submodule("encoder")

    def normalised(self, pixels: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) to float32 (B, 3, H, W) on the model's device, channels last in memory."""
        return normalised(pixels, self.mean, self.std, self.device)

    def copied(self) -> UNet:
        """A member with the same weights that can be trained on without changing this one."""
        return replace(self, model=copy.deepcopy(self.model))


def create(config: SegmentationConfig, classes: Sequence[str], seed: int) -> UNet:
    """A U-Net with the starting weights that `config.weights` says; `seed` decides the random ones.

    A weights file is that of the timm encoder, as for `backbone.create`. Raises HubUnreachable within seconds where
    the hub cannot be reached and has nothing cached, WeightsError for a weights file that does not fit, ValueError for
    a backbone that timm does not know or that gives no features at the scales of a U-Net.
    """
    check_name(config.backbone)
    decoder = _decoder(config.backbone)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if config.weights == "hub":
            model = from_hub(config.backbone, lambda: _built(config.backbone, len(classes), decoder, pretrained=True))
        else:
            model = _built(config.backbone, len(classes), decoder, pretrained=False)
        if config.weights not in ("hub", "scratch"):
            _load_encoder(model, config)
    normalisation: Any = timm.get_pretrained_cfg(config.backbone)
    return UNet(
        name=config.backbone,
        classes=tuple(classes),
        decoder=decoder,
        model=placed(model).eval(),
        mean=tuple(normalisation.mean),
        std=tuple(normalisation.std),
        pretrained=config.weights != "scratch",
    )


def with_reachable_weights(config: SegmentationConfig) -> tuple[SegmentationConfig, str | None]:
    """The config to train with, and a sentence for the admin where it is not the one that was asked for."""
    if config.weights != "hub":
        return config, None
    try:
        create(config, ["any"], config.seed)
    except HubUnreachable as error:
        said = f"{error} The encoder is trained from scratch instead, which needs more labels for the same accuracy."
        return replace(config, weights="scratch"), said
    return config, None


def save(unet: UNet, path: Path) -> None:
    """Write the weights, and what is needed to rebuild the network, as one safetensors file, at once or not at all."""
    about = {
        "name": unet.name,
        "classes": unet.classes,
        "decoder": unet.decoder,
        "mean": unet.mean,
        "std": unet.std,
        "pretrained": unet.pretrained,
        "made_from": unet.made_from,
    }
    tensors = {name: value.cpu().contiguous() for name, value in unet.model.state_dict().items()}
    save_whole(tensors, {"unet": about}, path)


def load(path: Path) -> UNet:
    """A U-Net as `save` wrote it, on the chosen device. Raises WeightsError where the file is not one."""
    try:
        about = metadata(path)["unet"]
        decoder = tuple(about.get("decoder", DECODER))  # files of before it was kept have the widest
        model = _built(about["name"], len(about["classes"]), decoder, pretrained=False)
        model.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError, KeyError) as error:
        raise WeightsError(f"{path} is not a U-Net of Second Look: {error}") from error
    return UNet(
        name=about["name"],
        classes=tuple(about["classes"]),
        decoder=decoder,
        model=placed(model).eval(),
        mean=tuple(about["mean"]),
        std=tuple(about["std"]),
        pretrained=about["pretrained"],
        made_from=about["made_from"],
    )


def _decoder(backbone: str) -> tuple[int, ...]:
    """At no scale wider than the encoder: of a small one the decoder would be most of the work."""
    with _refused(backbone), torch.random.fork_rng(devices=[]):
        encoder: Any = smp.encoders.get_encoder(f"tu-{backbone}", weights=None)  # type: ignore[no-untyped-call]
        # From the deepest down; 0 where the encoder leaves a scale out, and for the last, as large as the image.
        widths = [*reversed(encoder.out_channels[1:-1]), 0]
        return tuple(min(most, width or most) for most, width in zip(DECODER, widths, strict=True))


def _built(backbone: str, classes: int, decoder: tuple[int, ...], *, pretrained: bool) -> nn.Module:
    with _refused(backbone):
        model: nn.Module = smp.Unet(
            f"tu-{backbone}", encoder_weights=pretrained or None, classes=classes, decoder_channels=decoder
        )
        return model


@contextmanager
def _refused(backbone: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, AttributeError, AssertionError) as error:
        raise ValueError(
            f"{backbone} cannot be the encoder of a U-Net, which needs features at every halving of the image: choose "
            f"a convolutional one such as resnet18 or efficientnet_b0 ({error})"
        ) from error


def _load_encoder(model: nn.Module, config: SegmentationConfig) -> None:
    """Start the encoder from a file with timm's names, some of which segmentation-models-pytorch has flattened."""
    own = {key.removeprefix(ENCODER): value for key, value in model.state_dict().items() if key.startswith(ENCODER)}
    timms = {key.replace(".", "_"): key for key in timm.create_model(config.backbone, num_classes=0).state_dict()}
    names = {timms.get(key.replace(".", "_"), key): key for key in own}
    wanted: Mapping[str, Tensor] = {name: own[key] for name, key in names.items()}
    found = read_weights(config.weights, config.backbone, wanted)
    model.load_state_dict({ENCODER + names[name]: value for name, value in found.items()}, strict=False)
