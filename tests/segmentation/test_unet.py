from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from backend.learning.backbone import HubUnreachable, metadata, save_whole
from backend.learning.starting_weights import WeightsError
from backend.segmentation.config import SegmentationConfig
from backend.segmentation.predicting import tile_logits
from backend.segmentation.unet import DECODER, ENCODER, _built, create, load, save, with_reachable_weights

TILES = np.random.default_rng(0).integers(0, 256, (2, 32, 64, 3), dtype=np.uint8)
CLASSES = ("nucleus", "border")


@pytest.mark.parametrize("name", ["test_resnet", "mobilenetv3_small_050", "convnext_atto"])
def test_any_convolutional_backbone_segments_any_tile(name: str, config: SegmentationConfig) -> None:
    found = tile_logits(create(replace(config, backbone=name), CLASSES, seed=0), TILES)
    assert found.shape == (2, 2, 32, 64) and found.dtype == np.float32 and np.isfinite(found).all()


def test_a_decoder_is_nowhere_wider_than_its_encoder_and_kept_with_the_weights(
    config: SegmentationConfig, tmp_path: Path
) -> None:
    small = create(replace(config, backbone="test_resnet"), CLASSES, seed=0)
    assert small.decoder == (192, 48, 32, 32, 16)  # of features of 32, 32, 48, 192 and 96 channels
    assert create(replace(config, backbone="resnet10t"), CLASSES, seed=0).decoder == DECODER
    # A file of before the widths were kept.
    model = _built("test_resnet", len(CLASSES), DECODER, pretrained=False)
    wide = replace(small, model=model.eval(), decoder=DECODER)
    save(wide, tmp_path / "wide.safetensors")
    about = metadata(tmp_path / "wide.safetensors")["unet"]
    del about["decoder"]
    save_whole(load_file(tmp_path / "wide.safetensors"), {"unet": about}, tmp_path / "old.safetensors")
    found = load(tmp_path / "old.safetensors")
    assert found.decoder == DECODER
    assert np.array_equal(tile_logits(found, TILES), tile_logits(wide, TILES))


def test_random_weights_follow_the_seed_alone(config: SegmentationConfig) -> None:
    torch.manual_seed(1)
    first = tile_logits(create(config, CLASSES, seed=4), TILES)
    torch.manual_seed(2)
    assert np.array_equal(first, tile_logits(create(config, CLASSES, seed=4), TILES))
    assert not np.allclose(first, tile_logits(create(config, CLASSES, seed=5), TILES))


def test_a_saved_unet_is_the_same_unet(config: SegmentationConfig, tmp_path: Path) -> None:
    unet = replace(create(config, CLASSES, seed=1), made_from="these masks")
    save(unet, tmp_path / "unet.safetensors")
    found = load(tmp_path / "unet.safetensors")
    assert replace(found, model=unet.model) == unet
    assert np.array_equal(tile_logits(found, TILES), tile_logits(unet, TILES))
    (tmp_path / "other.safetensors").write_bytes(b"not one")
    with pytest.raises(WeightsError, match=r"other\.safetensors is not a U-Net of Second Look"):
        load(tmp_path / "other.safetensors")


@pytest.mark.parametrize("name", ["test_resnet", "convnext_atto"])
def test_a_weights_file_of_the_timm_classifier_starts_the_encoder(
    name: str, config: SegmentationConfig, tmp_path: Path
) -> None:
    stored = timm.create_model(name, num_classes=7).state_dict()
    save_file(stored, tmp_path / "weights.safetensors")
    unet = create(replace(config, backbone=name, weights=str(tmp_path / "weights.safetensors")), CLASSES, seed=0)
    assert unet.pretrained
    by_name = {key.replace(".", "_"): value for key, value in stored.items()}
    own = {key.removeprefix(ENCODER): value for key, value in unet.model.state_dict().items() if ENCODER in key}
    assert own and all(torch.equal(value.cpu(), by_name[key.replace(".", "_")]) for key, value in own.items())
    with pytest.raises(WeightsError, match="does not fit mobilenetv3_small_050"):
        create(
            replace(config, backbone="mobilenetv3_small_050", weights=str(tmp_path / "weights.safetensors")), CLASSES, 0
        )


def test_a_backbone_that_cannot_be_an_encoder_is_refused(config: SegmentationConfig) -> None:
    with pytest.raises(ValueError, match=r"no backbone called 'resnet5O'; did you mean resnet50"):
        create(replace(config, backbone="resnet5O"), CLASSES, seed=0)
    with pytest.raises(ValueError, match=r"test_vit cannot be the encoder of a U-Net.*resnet18"):
        create(replace(config, backbone="test_vit"), CLASSES, seed=0)


def test_an_unreachable_hub_means_scratch_and_says_so(
    config: SegmentationConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # A port nobody listens on, and an empty cache.
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    hub = replace(config, weights="hub", backbone="resnet10t")
    with pytest.raises(HubUnreachable, match=r"No pretrained weights for resnet10t: http://127.0.0.1:9"):
        create(hub, CLASSES, seed=0)
    found, said = with_reachable_weights(hub)
    assert found == replace(hub, weights="scratch")
    assert said is not None and "trained from scratch instead" in said
    assert with_reachable_weights(config) == (config, None)


def test_settings_that_make_no_sense_are_named() -> None:
    for name, value in {"folds": 1, "steps": 0, "crop": 100, "tile": 0}.items():
        with pytest.raises(ValueError, match=f"{name} must be"):
            SegmentationConfig(**{name: value})  # type: ignore[arg-type]
