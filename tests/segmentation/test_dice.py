import numpy as np
import pytest
from sklearn.metrics import f1_score

from backend.segmentation.dice import dice, mean_dice


def test_it_is_scikit_learns_f1_of_the_reviewed_pixels() -> None:
    rng = np.random.default_rng(0)
    found, truth = rng.integers(0, 2, (2, 5, 3, 11, 13)).astype(np.uint8) * 255
    reviewed = rng.integers(0, 2, (5, 11, 13)).astype(np.uint8)
    expected, inside = np.zeros((5, 3)), np.zeros((5, 3))
    for row in range(5):
        for one in range(3):
            expected[row, one] = f1_score(truth[row, one].ravel() > 0, found[row, one].ravel() > 0)
            seen = reviewed[row] > 0
            inside[row, one] = f1_score(truth[row, one][seen] > 0, found[row, one][seen] > 0)
    np.testing.assert_allclose(dice(found, truth), expected)
    np.testing.assert_allclose(dice(found, truth, reviewed), inside)
    np.testing.assert_allclose(dice(found[0] > 0, truth[0] > 0), expected[0])


def test_a_class_in_neither_mask_has_no_dice_and_does_not_count() -> None:
    truth = np.zeros((2, 3, 4, 4), dtype=np.uint8)
    found = truth.copy()
    truth[0, 0], found[0, 0] = 1, 1
    found[1, 1] = 1
    scores = dice(found, truth)
    np.testing.assert_array_equal(scores, [[1, np.nan, np.nan], [np.nan, 0, np.nan]])
    np.testing.assert_array_equal(mean_dice(scores), [1, 0, np.nan])


def test_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(1, 2, 2\) and \(1, 2, 3\)"):
        dice(np.zeros((1, 2, 2), dtype=bool), np.zeros((1, 2, 3), dtype=bool))
