from dataclasses import replace

import numpy as np
import pytest
import timm
import torch

from backend.segmentation.config import SegmentationConfig
from backend.segmentation.embedding import patch_embeddings
from backend.segmentation.unet import ENCODER, create

IMAGE = np.random.default_rng(0).integers(0, 256, (100, 70, 3), dtype=np.uint8)


def test_they_are_timms_features_of_the_patch(config: SegmentationConfig) -> None:
    member = create(config, ("a",), 0)
    features = timm.create_model("test_resnet", features_only=True).eval()
    own = {key.removeprefix(ENCODER): value for key, value in member.model.state_dict().items() if ENCODER in key}
    features.load_state_dict(own)
    top, left = np.array([0, 36, 10]), np.array([0, 6, 3])
    found = patch_embeddings(member, IMAGE, top, left, 64)
    patches = np.stack([IMAGE[a : a + 64, b : b + 64] for a, b in zip(top, left, strict=True)])
    with torch.inference_mode():
        expected = features(member.normalised(torch.from_numpy(patches)).cpu())[-1].mean(dim=(2, 3)).numpy()
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize("side", [20, 64, 130])
def test_any_side_and_equal_patches_are_equal(side: int, config: SegmentationConfig) -> None:
    member = create(replace(config, backbone="test_resnet"), ("a",), 0)
    found = patch_embeddings(member, np.tile(IMAGE, (2, 1, 1)), np.array([0, 100, 7]), np.array([0, 0, 0]), side)
    assert found.shape[0] == 3 and np.isfinite(found).all()
    if side < 100:
        np.testing.assert_allclose(found[0], found[1], atol=1e-3)
        assert not np.allclose(found[0], found[2], atol=1e-3)
