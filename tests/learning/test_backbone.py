from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from backend.learning import backbone as subject
from backend.learning.backbone import (
    HubUnreachable,
    WeightsError,
    create,
    embed,
    load,
    save,
    with_reachable_weights,
)
from backend.learning.config import LearningConfig

CONFIG = LearningConfig(backbone="test_resnet", weights="scratch", image_size=32)
PIXELS = np.random.default_rng(0).integers(0, 256, (11, 32, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_vit", "mobilenetv3_small_050"])
def test_any_timm_backbone_embeds_any_image_size(name: str) -> None:
    backbone = create(replace(CONFIG, backbone=name, image_size=64), seed=0)
    pixels = PIXELS.repeat(2, axis=1).repeat(2, axis=2)
    found = embed(backbone, pixels, batch=4)
    assert found.shape == (11, backbone.dimension) and found.dtype == np.float32 and np.isfinite(found).all()


def test_embeddings_are_timms_own() -> None:
    backbone = create(CONFIG, seed=3)
    cfg = backbone.model.pretrained_cfg
    images = torch.from_numpy(PIXELS).permute(0, 3, 1, 2) / 255
    images = (images - torch.tensor(cfg["mean"]).view(1, 3, 1, 1)) / torch.tensor(cfg["std"]).view(1, 3, 1, 1)
    with torch.inference_mode():
        expected = backbone.model.cpu()(images).numpy()
    found = embed(create(CONFIG, seed=3), PIXELS, batch=4)
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


def test_the_batch_size_and_the_progress_bar_change_nothing() -> None:
    backbone = create(CONFIG, seed=0)
    seen: list[tuple[int, int]] = []
    found = embed(backbone, PIXELS, batch=4, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(4, 11), (8, 11), (11, 11)]
    assert np.allclose(found, embed(backbone, PIXELS, batch=11), atol=0.02)


def test_random_weights_follow_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = embed(create(CONFIG, seed=4), PIXELS)
    torch.manual_seed(2)
    assert np.array_equal(first, embed(create(CONFIG, seed=4), PIXELS))
    assert not np.allclose(first, embed(create(CONFIG, seed=5), PIXELS))


def test_a_saved_backbone_is_the_same_backbone(tmp_path: Path) -> None:
    backbone = replace(create(CONFIG, seed=1), made_from="these labels")
    save(backbone, tmp_path / "backbone.safetensors")
    found = load(tmp_path / "backbone.safetensors")
    assert replace(found, model=backbone.model) == backbone
    assert np.array_equal(embed(found, PIXELS), embed(backbone, PIXELS))
    assert [path.name for path in tmp_path.iterdir()] == ["backbone.safetensors"]


def test_a_weights_file_is_a_start_like_the_hubs(tmp_path: Path) -> None:
    path = tmp_path / "resnet.safetensors"
    with_classifier = timm.create_model("test_resnet", num_classes=7)
    save_file(with_classifier.state_dict(), path)
    backbone = create(replace(CONFIG, weights=str(path)), seed=0)
    assert backbone.pretrained
    kept = backbone.model.state_dict()
    stored = load_file(path)
    assert all(torch.equal(value.cpu(), stored[name]) for name, value in kept.items())


def test_weights_that_do_not_fit_are_refused_with_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    with pytest.raises(WeightsError, match=r"weights\.safetensors cannot be read as .* test_resnet"):
        create(replace(CONFIG, weights=str(path)), seed=0)
    path.write_bytes(b"not a weights file")
    with pytest.raises(WeightsError, match="cannot be read"):
        create(replace(CONFIG, weights=str(path)), seed=0)
    with pytest.raises(WeightsError, match="not a backbone of Second Look"):
        load(path)


def test_an_unknown_backbone_is_refused_with_the_nearest_names() -> None:
    with pytest.raises(ValueError, match=r"no backbone called 'resnet5O'; did you mean resnet50"):
        create(replace(CONFIG, backbone="resnet5O"), seed=0)
    with pytest.raises(ValueError, match=r"timm\.list_models"):
        create(replace(CONFIG, backbone="!"), seed=0)


def test_an_unreachable_hub_means_scratch_and_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # A port nobody listens on, and an empty cache.
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    hub = replace(CONFIG, weights="hub", backbone="resnet10t")
    with pytest.raises(HubUnreachable, match=r"No pretrained weights for resnet10t: http://127.0.0.1:9"):
        create(hub, seed=0)
    assert constants.HF_HUB_OFFLINE is False
    config, said = with_reachable_weights(hub)
    assert config == replace(hub, weights="scratch")
    assert said is not None and "trained from scratch instead" in said
    assert with_reachable_weights(CONFIG) == (CONFIG, None)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    subject.save_whole({"a": torch.ones(2)}, {"said": [1, "two"]}, path)
    assert subject.metadata(path) == {"said": [1, "two"]}
    with pytest.raises(TypeError):
        subject.save_whole({"a": torch.zeros(2)}, {"said": object()}, path)
    assert load_file(path)["a"].tolist() == [1, 1]
