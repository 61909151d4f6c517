"""Weights files as people bring them: made with timm, saved, and read back as the start of a backbone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from backend.learning.backbone import create
from backend.learning.config import LearningConfig
from backend.learning.starting_weights import WeightsError

CONFIG = LearningConfig(backbone="test_resnet", weights="scratch", image_size=32)


def start(path: Path, stored: dict[str, Tensor], backbone: str = "test_resnet") -> dict[str, Tensor]:
    """What a backbone starts from, given a file with these tensors."""
    save_file({key: value.contiguous() for key, value in stored.items()}, path)
    made = create(replace(CONFIG, backbone=backbone, weights=str(path)), seed=0)
    assert made.pretrained
    return {key: value.cpu() for key, value in made.model.state_dict().items()}


def assert_same(found: dict[str, Tensor], model: torch.nn.Module) -> None:
    expected = model.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in found.items())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "weights.safetensors"


@pytest.mark.parametrize("prefix", ["", "backbone.", "module.", "module.encoder."])
def test_a_classifier_and_a_prefix_do_no_harm(path: Path, prefix: str) -> None:
    model = timm.create_model("test_resnet", num_classes=7)
    stored = {prefix + key: value for key, value in model.state_dict().items()}
    assert_same(start(path, stored | {"other.thing": torch.zeros(3)}), model)


def test_a_transformers_positions_are_brought_to_the_image_size(path: Path) -> None:
    model = timm.create_model("test_vit", num_classes=7)
    found = start(path, model.state_dict(), "test_vit")
    assert found.pop("pos_embed").shape != model.state_dict()["pos_embed"].shape
    assert_same(found, model)


def test_a_network_for_grey_images_gives_the_same_features_for_grey_images(path: Path) -> None:
    grey = timm.create_model("test_resnet", num_classes=0, in_chans=1).eval()
    save_file(grey.state_dict(), path)
    made = create(replace(CONFIG, weights=str(path)), seed=0).model.cpu().eval()
    image = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 1, 32, 32)).astype(np.float32))
    with torch.inference_mode():
        assert torch.allclose(made(image.expand(-1, 3, -1, -1)), grey(image), atol=1e-4)


def test_a_counter_that_was_left_out_does_no_harm(path: Path) -> None:
    model = timm.create_model("test_resnet", num_classes=0)
    stored = {key: value for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")}
    assert len(stored) < len(model.state_dict())
    found = start(path, stored)
    assert_same({key: found[key] for key in stored}, model)


def test_a_file_for_another_backbone_is_refused_by_name_and_number(path: Path) -> None:
    model = timm.create_model("test_resnet", num_classes=0).state_dict()
    total = sum(not key.endswith("num_batches_tracked") for key in model)
    with pytest.raises(WeightsError, match=rf"weights\.safetensors does not fit test_resnet: 0 of its {total} tensors"):
        start(path, {"other": torch.zeros(3)})
    first = next(iter(model))
    with pytest.raises(WeightsError, match=rf"{total - 1} of its {total} tensors fit; it lacks: {first}$"):
        start(path, {key: value for key, value in model.items() if key != first})
    with pytest.raises(WeightsError, match=rf"{total - 1} of its {total} tensors fit; other shapes: {first} "):
        start(path, model | {first: model[first][:, :2].clone()})
    with pytest.raises(WeightsError, match="does not fit test_resnet"):
        start(path, timm.create_model("test_efficientnet", num_classes=0).state_dict())
