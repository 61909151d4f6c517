"""The network that turns images into embeddings: made, loaded, saved, applied."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import timm
import torch
from huggingface_hub import constants as hub
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from backend.learning import device as devices
from backend.learning.arrays import Float32, Pixels
from backend.learning.config import LearningConfig
from backend.learning.starting_weights import WeightsError, read_weights

HUB_TIMEOUT_S = 5.0
EMBEDDING_BATCH = 128

Progress = Callable[[int, int], None]
"""Called after every batch with what is done and the total, for a progress bar and a heartbeat."""


def part_of(progress: Progress | None, part: int, parts: int) -> Progress | None:
    """Report one of several equal parts as a share of them all."""
    if progress is None:
        return None

    def report(done: int, total: int) -> None:
        progress(part * total + done, parts * total)

    return report


class HubUnreachable(RuntimeError):
    """The pretrained weights are neither cached nor to be had from the hub; train from scratch instead."""


@dataclass(frozen=True)
class Backbone:
    """A timm network without its classifier.

    `model` maps float (B, 3, image_size, image_size), normalised by `mean` and `std` of pixels in [0, 1],
    to (B, dimension). `pretrained` says whether training started from weights, `made_from` which inputs it
    was trained on (empty if it saw no label).
    """

    name: str
    image_size: int
    model: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]
    dimension: int
    pretrained: bool
    made_from: str = ""

    def normalised(self, pixels: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) to float32 (B, 3, H, W) on the model's device, channels last in memory."""
        return normalised(pixels, self.mean, self.std, next(self.model.parameters()).device)


def normalised(pixels: Tensor, mean: Sequence[float], std: Sequence[float], device: torch.device) -> Tensor:
    """uint8 (B, H, W, 3) to float32 (B, 3, H, W) on `device`, channels last; mean and std are of pixels in [0, 1]."""
    images = pixels.to(device).permute(0, 3, 1, 2).float() / 255
    centre = torch.tensor(mean, device=device).view(1, -1, 1, 1)
    spread = torch.tensor(std, device=device).view(1, -1, 1, 1)
    return ((images - centre) / spread).contiguous(memory_format=torch.channels_last)


def create(config: LearningConfig, seed: int) -> Backbone:
    """The backbone with its starting weights, as `config.weights` says; `seed` decides the random ones.

    Raises HubUnreachable within seconds where the hub cannot be reached and has nothing cached, WeightsError
    for a weights file that does not fit, ValueError for a backbone timm does not know.
    """
    check_name(config.backbone)
    if config.weights == "hub":
        model = from_hub(config.backbone, lambda: timm.create_model(config.backbone, pretrained=True, num_classes=0))
        return _wrapped(model, config, pretrained=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = timm.create_model(config.backbone, num_classes=0)
    if config.weights == "scratch":
        return _wrapped(model, config, pretrained=False)
    model.load_state_dict(read_weights(config.weights, config.backbone, model.state_dict()))
    return _wrapped(model, config, pretrained=True)


def check_name(name: str) -> None:
    """Raise ValueError, with the names that come nearest, for a backbone that timm does not know."""
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), 3)
        advice = f"did you mean {', '.join(near)}?" if near else "see timm.list_models()"
        raise ValueError(f"timm knows no backbone called {name!r}; {advice}")


def with_reachable_weights(config: LearningConfig) -> tuple[LearningConfig, str | None]:
    """The config to train with, and a sentence for the admin where it is not the one that was asked for."""
    if config.weights != "hub":
        return config, None
    try:
        create(config, config.seed)
    except HubUnreachable as error:
        said = f"{error} The backbone is trained from scratch instead, which needs more labels for the same accuracy."
        return replace(config, weights="scratch"), said
    return config, None


def embed(
    backbone: Backbone, pixels: Pixels, batch: int = EMBEDDING_BATCH, progress: Progress | None = None
) -> Float32:
    """Embeddings float32 (N, D) of N images."""
    found = np.empty((len(pixels), backbone.dimension), dtype=np.float32)
    backbone.model.eval()
    half = devices.half_precision(next(backbone.model.parameters()).device)
    with torch.inference_mode():
        for start in range(0, len(pixels), batch):
            rows = np.arange(start, min(start + batch, len(pixels)))
            images = backbone.normalised(torch.from_numpy(np.array(pixels[rows])))
            with half:
                features = backbone.model(images)
            found[rows] = features.float().cpu().numpy()
            if progress:
                progress(int(rows[-1]) + 1, len(pixels))
    return found


def save(backbone: Backbone, path: Path) -> None:
    """Write the weights, and what is needed to rebuild the network, as one safetensors file, at once or not at all."""
    about = {
        "name": backbone.name,
        "image_size": backbone.image_size,
        "mean": backbone.mean,
        "std": backbone.std,
        "dimension": backbone.dimension,
        "pretrained": backbone.pretrained,
        "made_from": backbone.made_from,
    }
    tensors = {name: value.cpu().contiguous() for name, value in backbone.model.state_dict().items()}
    save_whole(tensors, {"backbone": about}, path)


def load(path: Path) -> Backbone:
    """A backbone as `save` wrote it, on the chosen device. Raises WeightsError where the file is not one."""
    try:
        about = metadata(path)["backbone"]
        model = timm.create_model(about["name"], num_classes=0)
        _resize(model, about["image_size"])
        model.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError, KeyError) as error:
        raise WeightsError(f"{path} is not a backbone of Second Look: {error}") from error
    return Backbone(
        name=about["name"],
        image_size=about["image_size"],
        model=placed(model),
        mean=tuple(about["mean"]),
        std=tuple(about["std"]),
        dimension=about["dimension"],
        pretrained=about["pretrained"],
        made_from=about["made_from"],
    )


def save_whole(tensors: Mapping[str, Tensor], about: Mapping[str, Any], path: Path) -> None:
    """Write a safetensors file under a temporary name and rename it: whoever finds it finds all of it."""
    temporary = path.with_name(path.name + ".part")
    save_file(dict(tensors), temporary, metadata={key: json.dumps(value) for key, value in about.items()})
    temporary.replace(path)


def metadata(path: Path) -> dict[str, Any]:
    """What `save_whole` was told about a file."""
    with safe_open(path, framework="pt") as file:
        return {key: json.loads(value) for key, value in (file.metadata() or {}).items()}


def from_hub(name: str, make: Callable[[], nn.Module]) -> nn.Module:
    """What `make` makes of the pretrained weights of `name`, from the hub or its cache. Raises HubUnreachable.

    Asks once whether the hub is there, for its client retries for 45 s.
    """
    was_offline = hub.HF_HUB_OFFLINE
    try:
        httpx.head(hub.ENDPOINT, timeout=HUB_TIMEOUT_S)
    except httpx.HTTPError:
        hub.HF_HUB_OFFLINE = True
    try:
        return make()
    except (OSError, httpx.HTTPError) as error:
        raise HubUnreachable(f"No pretrained weights for {name}: {hub.ENDPOINT} cannot be reached.") from error
    except RuntimeError as error:
        raise HubUnreachable(f"No pretrained weights for {name}: {error}.") from error
    finally:
        hub.HF_HUB_OFFLINE = was_offline


def _wrapped(model: nn.Module, config: LearningConfig, *, pretrained: bool) -> Backbone:
    _resize(model, config.image_size)
    normalisation: Any = model.pretrained_cfg
    model = placed(model)
    backbone = Backbone(
        name=config.backbone,
        image_size=config.image_size,
        model=model,
        mean=tuple(normalisation["mean"]),
        std=tuple(normalisation["std"]),
        dimension=0,
        pretrained=pretrained,
    )
    blank = torch.zeros((1, config.image_size, config.image_size, 3), dtype=torch.uint8)
    model.eval()
    with torch.inference_mode():
        return replace(backbone, dimension=model(backbone.normalised(blank)).shape[1])


def _resize(model: nn.Module, image_size: int) -> None:
    """Transformers are built for one input size; convolutions take any."""
    set_input_size = getattr(model, "set_input_size", None)
    if set_input_size is not None:
        set_input_size(img_size=(image_size, image_size))


def placed(model: nn.Module) -> nn.Module:
    """The network on the chosen device, channels last in memory."""
    return model.to(devices.choose()).to(memory_format=torch.channels_last)
