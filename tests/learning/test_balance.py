import numpy as np
from sklearn.utils.class_weight import compute_class_weight

from backend.learning.balance import CAP, class_weights


def test_balanced_as_in_scikit_learn() -> None:
    classes = np.random.default_rng(0).choice(3, 200, p=[0.6, 0.3, 0.1])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=classes)
    targets = np.eye(3, dtype=np.float32)[classes]
    targets = np.concatenate([targets, np.full((5, 3), np.nan, np.float32)])
    assert np.allclose(class_weights(targets, multiple=False), expected, rtol=1e-6)


def test_rows_of_weight_count_as_often() -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 4, 60)
    targets = (rng.random((60, 3)) < 0.3).astype(np.float32)
    for multiple in (False, True):
        weighed = class_weights(targets, multiple, counts.astype(np.float32))
        assert np.allclose(weighed, class_weights(targets.repeat(counts, axis=0), multiple))


def test_ticks_are_weighed_against_their_absence_within_limits() -> None:
    targets = np.zeros((100, 4), np.float32)
    targets[:25, 0] = 1
    targets[:1, 1] = 1
    targets[:, 2] = 1
    assert class_weights(targets, multiple=True).tolist() == [3.0, CAP, 1.0, 1.0]
