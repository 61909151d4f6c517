from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from backend.learning.folds import HOLDOUT
from backend.learning.starting_weights import WeightsError
from backend.segmentation.config import SegmentationConfig
from backend.segmentation.crops import Examples
from backend.segmentation.ensemble import Ensemble, cross_fit, load, logits_at, save, temperatures
from backend.segmentation.predicting import tile_logits
from backend.segmentation.unet import UNet, create

CLASSES = ("square", "left half of it")
FOLDS = np.array([0, 1] * 7 + [HOLDOUT] * 2, dtype=np.int8)


def weights_of(unet: UNet) -> torch.Tensor:
    return torch.cat([value.float().flatten().cpu() for value in unet.model.state_dict().values()])


@pytest.fixture(scope="module")
def ensemble(squares: Examples, config: SegmentationConfig) -> Ensemble:
    return cross_fit(squares, FOLDS, CLASSES, config)


def test_labelled_images_get_the_member_that_never_saw_their_fold(ensemble: Ensemble) -> None:
    assert ensemble.unseen(1, labelled=True) == (ensemble.members[1],)
    assert ensemble.unseen(1, labelled=False) == ensemble.members
    assert ensemble.unseen(HOLDOUT, labelled=True) == ensemble.members


@pytest.mark.skipif(torch.cuda.is_available(), reason="repeatable on the CPU only")
def test_no_member_depends_on_its_fold_nor_any_on_the_hold_out(
    squares: Examples, config: SegmentationConfig, ensemble: Ensemble
) -> None:
    seen: list[tuple[int, int]] = []
    images, masks = squares.images.copy(), squares.masks.copy()  # type: ignore[attr-defined]
    changed = (FOLDS == 0) | (FOLDS == HOLDOUT)
    images[changed], masks[changed] = 255 - images[changed], 1 - masks[changed]
    other = cross_fit(
        Examples(images, masks, squares.reviewed),
        FOLDS,
        CLASSES,
        config,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(step, 6) for step in range(1, 7)]
    assert torch.equal(weights_of(ensemble.members[0]), weights_of(other.members[0]))
    assert not torch.equal(weights_of(ensemble.members[1]), weights_of(other.members[1]))


def test_temperatures_undo_overconfidence_class_by_class(squares: Examples, config: SegmentationConfig) -> None:
    """Masks are drawn from what the members say, at three times the temperature in the second class."""
    members = [create(config, CLASSES, seed) for seed in (0, 1)]
    rng = np.random.default_rng(0)
    truth = np.zeros_like(squares.masks)
    lines, columns = np.mgrid[:40, :48].reshape(2, -1)
    for member in members:  # untrained, they would give one answer everywhere: logits are brought to 0 on average, +-2
        head = member.model.segmentation_head[0]  # type: ignore[union-attr,index]
        logits = torch.from_numpy(logits_at(member, squares.images[0], (lines, columns), 64)).to(head.bias.device)
        with torch.no_grad():
            scale = 2 / logits.std(dim=0)
            head.bias.copy_((head.bias - logits.mean(dim=0)) * scale)
            head.weight *= scale[:, None, None, None]
    for row in range(16):
        if FOLDS[row] == HOLDOUT:
            continue
        said = logits_at(members[FOLDS[row]], squares.images[row], (lines, columns), 64).T.reshape(2, 40, 48)
        hot = said / np.array([1, 3], dtype=np.float32)[:, None, None]
        truth[row] = rng.random(hot.shape) < 1 / (1 + np.exp(-hot))
    found = temperatures(members, squares._replace(masks=truth), FOLDS, config)
    assert found.dtype == np.float32 and found == pytest.approx([1, 3], rel=0.25)


def test_logits_at_pixels_are_those_of_the_tile(config: SegmentationConfig) -> None:
    member = create(config, CLASSES, 0)
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    expected = tile_logits(member, image[None])[0]
    lines, columns = np.array([0, 5, 63]), np.array([63, 7, 0])
    np.testing.assert_allclose(logits_at(member, image, (lines, columns), 64), expected[:, lines, columns].T, rtol=1e-5)


def test_a_saved_ensemble_is_the_same_ensemble(ensemble: Ensemble, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="holds no ensemble"):
        load(tmp_path)
    save(ensemble, tmp_path / "v1")
    found = load(tmp_path / "v1")
    assert np.array_equal(found.temperatures, ensemble.temperatures)
    for one, other in zip(found.members, ensemble.members, strict=True):
        assert torch.equal(weights_of(one), weights_of(other))


def test_a_warm_start_needs_a_member_per_fold(
    squares: Examples, config: SegmentationConfig, ensemble: Ensemble
) -> None:
    with pytest.raises(ValueError, match="1 U-Nets to start from for 2 folds"):
        cross_fit(squares, FOLDS, CLASSES, config, starts=ensemble.members[:1])
    warmer = cross_fit(squares, FOLDS, CLASSES, replace(config, steps=1), starts=ensemble.members)
    for one, start in zip(warmer.members, ensemble.members, strict=True):
        refit = create(config, CLASSES, 99)
        assert (weights_of(one) - weights_of(start)).norm() < (weights_of(one) - weights_of(refit)).norm()
