from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from backend.segmentation.config import SegmentationConfig
from backend.segmentation.predicting import predict, tile_logits
from backend.segmentation.unet import create
from tasks.ranking.uncertainty import uncertainty

TEMPERATURES = np.array([0.5, 2.0], dtype=np.float32)


def test_one_tile_is_the_members_calibrated_and_averaged(config: SegmentationConfig) -> None:
    members = [create(config, ("a", "b"), seed) for seed in range(3)]
    image = np.random.default_rng(0).integers(0, 256, (64, 32, 3), dtype=np.uint8)
    found = predict(members, TEMPERATURES, image, "cross_entropy", tile=64)
    logits = np.stack([tile_logits(member, image[None])[0] for member in members])
    each = expit(logits / TEMPERATURES[:, None, None])
    np.testing.assert_allclose(found.probabilities, each.mean(axis=0), atol=2e-3)
    unsure = uncertainty("cross_entropy", each.reshape(3, 2, -1).transpose(0, 2, 1), multiple=True)
    np.testing.assert_allclose(found.uncertainty, unsure.reshape(64, 32), atol=2e-3)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (70, 33), (90, 131)])
def test_any_size_of_image_in_memory_and_from_files(
    height: int, width: int, config: SegmentationConfig, tmp_path: Path
) -> None:
    members = [create(config, ("a", "b"), seed) for seed in range(2)]
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    np.save(tmp_path / "image.npy", image)
    found = predict(members, TEMPERATURES, image, "bald", tile=64)
    mapped = predict(
        members, TEMPERATURES, np.load(tmp_path / "image.npy", mmap_mode="r"), "bald", tile=64, folder=tmp_path
    )
    assert found.probabilities.shape == (2, height, width) and found.uncertainty.shape == (height, width)
    assert found.probabilities.min() >= 0 and found.probabilities.max() <= 1
    for name in ("probabilities", "uncertainty"):
        map_ = getattr(found, name)
        assert map_.dtype == np.float16 and np.isfinite(map_).all()
        assert np.array_equal(map_, getattr(mapped, name)) and np.array_equal(map_, np.load(tmp_path / f"{name}.npy"))
