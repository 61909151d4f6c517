"""The soft minimum beside cleanlab's."""

import numpy as np
import pytest
from cleanlab.segmentation.rank import get_label_quality_scores

from tasks.ranking import mask_errors
from tasks.ranking.mask_errors import doubts, mask_quality


def case(seed: int, classes: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.random((classes, 23, 31), dtype=np.float32), rng.integers(0, 2, (classes, 23, 31)).astype(np.uint8)


@pytest.mark.parametrize("seed", range(4))
def test_each_class_scores_as_cleanlab_has_it(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mask_errors, "BAND", 7)
    probabilities, masks = case(seed, classes=2)
    pairs = np.stack([1 - probabilities, probabilities], axis=1).astype(np.float64)
    expected, _ = get_label_quality_scores(masks.astype(int), pairs, method="softmin", verbose=False)
    found = mask_quality(probabilities, masks)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_only_what_is_reviewed_counts() -> None:
    probabilities, masks = case(5)
    reviewed = np.zeros((23, 31), dtype=np.uint8)
    reviewed[3:9, 4:20] = 1
    alone = mask_quality(probabilities[:, 3:9, 4:20], masks[:, 3:9, 4:20])
    np.testing.assert_allclose(mask_quality(probabilities, masks, reviewed), alone, rtol=1e-6)
    assert np.isnan(mask_quality(probabilities, masks, np.zeros_like(reviewed))).all()


def test_a_dropped_object_ranks_below_a_rough_outline() -> None:
    truth = np.zeros((1, 64, 64), dtype=np.uint8)
    truth[0, 10:20, 10:20] = truth[0, 40:50, 40:50] = 1
    probabilities = np.where(truth, 0.95, 0.05).astype(np.float16)
    dropped, rough = truth.copy(), truth.copy()
    dropped[0, 40:50, 40:50] = 0
    rough[0, 40:50, 50] = 1
    scores = [float(mask_quality(probabilities, masks)[0]) for masks in (dropped, rough, truth)]
    assert scores == sorted(scores) and scores[0] < scores[1] < scores[2]


def test_masks_of_another_size_are_refused() -> None:
    probabilities, masks = case(0)
    with pytest.raises(ValueError, match="do not fit together"):
        mask_quality(probabilities, masks[:, :-1])
    with pytest.raises(ValueError, match="do not fit together"):
        mask_quality(probabilities, masks, np.ones((3, 3), dtype=np.uint8))


def test_only_what_is_worse_than_usual_is_doubted() -> None:
    quality = np.array([[0.2, np.nan], [0.1, 0.5], [0.4, np.nan], [0.02, 0.5]], dtype=np.float32)
    found = doubts(quality)
    np.testing.assert_allclose(found[:, 0], [0, 1 - 0.1 / 0.15, 0, 1 - 0.02 / 0.15], atol=1e-6)
    np.testing.assert_array_equal(found[:, 1], [np.nan, 0, np.nan, 0])
    assert np.isnan(doubts(np.full((2, 1), np.nan, dtype=np.float32))).all()
    np.testing.assert_array_equal(doubts(np.zeros((3, 1), dtype=np.float32)), np.zeros((3, 1)))
    late = np.array([[0.03, 0.25], [np.nan, 0.9]], dtype=np.float32)
    np.testing.assert_allclose(doubts(late, quality), [[1 - 0.03 / 0.15, 0.5], [np.nan, 0]], atol=1e-6)
    nobody = np.full((3, 2), np.nan, dtype=np.float32)
    np.testing.assert_array_equal(doubts(late, nobody), [[0, 0], [np.nan, 0]])
