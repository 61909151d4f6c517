import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from backend.learning.folds import HOLDOUT
from backend.learning.record import opinions
from tasks.schema import Head

BOM = Head("bom", "image", "single", ("benign", "malignant"), 0.9, False, None, "malignant", True)
TIRADS = Head("tirads", "image", "single", tuple("12345"), 0.05, True, None, None, True)
FOCI = Head("foci", "image", "multiple", ("none", "punctate"), 0.05, False, None, None, True)


def cohort(seed: int, n: int = 1200) -> dict[str, np.ndarray]:
    """Grades that go with malignancy, a weak image model, and 5 % swapped labels of malignancy."""
    rng = np.random.default_rng(seed)
    malignant = rng.random(n) < 0.4
    grade = np.clip(np.round(np.where(malignant, 3, 1) + rng.normal(0, 0.8, n)), 0, 4).astype(int)
    logit = np.where(malignant, 0.7, -0.7) + rng.normal(size=n)
    p = 1 / (1 + np.exp(-logit))
    swapped = rng.random(n) < 0.05
    return {
        "image": np.stack([1 - p, p], axis=1).astype(np.float32),
        "grades": rng.dirichlet(np.ones(5), n).astype(np.float32),
        "bom": np.eye(2, dtype=np.float32)[(malignant ^ swapped).astype(int)],
        "tirads": np.eye(5, dtype=np.float32)[grade],
        "swapped": swapped,
        "folds": rng.integers(HOLDOUT, 5, n).astype(np.int8),
    }


def suspicion(p: np.ndarray, target: np.ndarray) -> np.ndarray:
    return 1 - (p * target).sum(axis=1)


def test_the_other_labels_help_to_find_the_wrong_ones() -> None:
    c = cohort(0)
    images = {"bom": c["image"], "tirads": c["grades"]}
    found = opinions([BOM, TIRADS], images, {"bom": c["bom"], "tirads": c["tirads"]}, c["folds"])["bom"]
    pool = c["folds"] != HOLDOUT
    alone = roc_auc_score(c["swapped"][pool], suspicion(c["image"], c["bom"])[pool])
    together = roc_auc_score(c["swapped"][pool], suspicion(found, c["bom"])[pool])
    assert together > alone + 0.1
    assert found.sum(axis=1) == pytest.approx(1, abs=1e-5)


def test_no_row_teaches_its_own_opinion() -> None:
    """Other labels of one fold change no opinion on that fold, and the hold-out teaches nobody."""
    c = cohort(1)
    images = {"bom": c["image"], "tirads": c["grades"]}
    before = opinions([BOM, TIRADS], images, {"bom": c["bom"], "tirads": c["tirads"]}, c["folds"])["bom"]
    for fold in (0, HOLDOUT):
        swapped = c["bom"].copy()
        swapped[c["folds"] == fold] = swapped[c["folds"] == fold, ::-1]
        after = opinions([BOM, TIRADS], images, {"bom": swapped, "tirads": c["tirads"]}, c["folds"])["bom"]
        kept = c["folds"] == fold if fold != HOLDOUT else np.ones(len(after), dtype=bool)
        assert np.array_equal(before[kept], after[kept])


def test_labels_that_mean_nothing_find_nothing() -> None:
    c = cohort(2)
    rng = np.random.default_rng(3)
    images = {"bom": rng.dirichlet(np.ones(2), 1200).astype(np.float32), "tirads": c["grades"]}
    target = {"bom": rng.permutation(c["bom"]), "tirads": rng.permutation(c["tirads"])}
    found = opinions([BOM, TIRADS], images, target, c["folds"])["bom"]
    aucs = [roc_auc_score(target["bom"][rows, 1], found[rows, 1]) for rows in (c["folds"] == fold for fold in range(5))]
    assert np.mean(aucs) == pytest.approx(0.5, abs=0.06)


def test_where_nothing_else_is_on_record_the_image_speaks() -> None:
    c = cohort(4)
    unsaid = np.full_like(c["tirads"], np.nan)
    images = {"bom": c["image"], "tirads": c["grades"], "foci": c["image"]}
    found = opinions([BOM, TIRADS, FOCI], images, {"bom": c["bom"], "tirads": unsaid}, c["folds"])
    assert all(np.array_equal(found[name], images[name]) for name in images)
    few = c["bom"].copy()
    few[99:] = np.nan
    found = opinions([BOM, TIRADS], images, {"bom": few, "tirads": c["tirads"]}, c["folds"])
    assert np.array_equal(found["bom"], c["image"])


def test_rows_without_a_label_and_multiple_choices_keep_the_images_probabilities() -> None:
    c = cohort(5)
    target = {"bom": c["bom"].copy(), "tirads": c["tirads"], "foci": c["bom"]}
    target["bom"][::3] = np.nan
    images = {"bom": c["image"], "tirads": c["grades"], "foci": c["image"]}
    found = opinions([BOM, TIRADS, FOCI], images, target, c["folds"])
    untouched = np.isnan(target["bom"]).any(axis=1) | (c["folds"] == HOLDOUT)
    assert np.array_equal(found["bom"][untouched], c["image"][untouched])
    assert not np.array_equal(found["bom"], c["image"])
    assert np.array_equal(found["foci"], c["image"])
