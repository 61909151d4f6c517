"""Suspects that weigh less: found where they are, and never by a label's own say."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from backend.learning.config import LearningConfig
from backend.learning.crossfit import cross_fit, mean_probabilities, predict
from backend.learning.doubted import doubted
from backend.learning.folds import HOLDOUT
from tasks.ranking.suspects import suspects
from tasks.schema import Head

CONFIG = LearningConfig(folds=4, head_seeds=1)
BOM = Head("bom", "image", "single", ("benign", "malignant"), 0.9, False, None, None, True)
SIGNS = Head("signs", "image", "multiple", ("a", "b"), 0.1, False, None, None, True)
EASY = 0.5  # every label that the prediction contradicts is a suspect


def one_hot(labels: np.ndarray) -> np.ndarray:
    return np.eye(2, dtype=np.float32)[labels]


@pytest.fixture(scope="module")
def noisy() -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Embeddings (600, 6), labels of which 8 % are wrong, folds with a hold-out, and which labels are wrong."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 6)).astype(np.float32)
    truth = (x[:, 0] + x[:, 1] > 0).astype(int)
    wrong = rng.random(600) < 0.08
    folds = (np.arange(600) % 5 - 1).astype(np.int8)
    targets = {"bom": one_hot(np.where(wrong, 1 - truth, truth)), "signs": one_hot(truth)}
    targets["signs"][300:] = np.nan
    return x, targets, folds, wrong


def test_wrong_labels_are_doubted_by_every_model_but_their_own_folds(noisy) -> None:
    x, targets, folds, wrong = noisy
    found = doubted([x], targets, folds, [BOM, SIGNS], CONFIG, 0.2)
    assert len(found) == CONFIG.folds
    for held, of in enumerate(found):
        there = (folds != held) & (folds != HOLDOUT)
        assert not of["bom"][~there].any() and not of["signs"][300:].any()
        assert wrong[of["bom"]].mean() > 0.7
        assert of["bom"][there & wrong].mean() > 0.5
        assert of["signs"].sum() < 15


@pytest.mark.parametrize("backbones", [1, CONFIG.folds])
def test_nothing_of_a_fold_decides_who_is_doubted_for_it(noisy, backbones: int) -> None:
    x, targets, folds, _ = noisy
    points = [x + np.float32(0.01 * member) for member in range(backbones)]
    found = doubted(points, targets, folds, [BOM, SIGNS], CONFIG, 0.2)
    held = folds == 2
    turned = {name: np.where(held[:, None], target[:, ::-1], target) for name, target in targets.items()}
    again = doubted(points, turned, folds, [BOM, SIGNS], CONFIG, 0.2)
    for name in targets:
        assert np.array_equal(found[2][name], again[2][name])
        assert not np.array_equal(found[1][name], again[1][name])


def test_suspects_of_one_cross_fit_would_let_labels_leak_and_these_do_not() -> None:
    """Labels that nothing tells: in 200 dimensions the models agree with what they saw, and with nothing else."""
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(1200, 200)).astype(np.float32), rng.integers(0, 2, 1200)
    folds, targets = (np.arange(1200) % 4).astype(np.int8), {"bom": one_hot(labels)}

    def auc(weights: Sequence[dict[str, np.ndarray]] | None) -> float:
        fit = cross_fit([x], targets, folds, [BOM], CONFIG, row_weights=weights)
        p = mean_probabilities(predict(fit, [x], folds, np.ones(1200, dtype=bool)), 1200)["bom"]
        return float(np.mean([roc_auc_score(labels[folds == k], p[folds == k, 1]) for k in range(4)]))

    fit = cross_fit([x], targets, folds, [BOM], CONFIG)
    p = mean_probabilities(predict(fit, [x], folds, np.ones(1200, dtype=bool)), 1200)["bom"]
    at_once = [{"bom": 1 - suspects(p, targets["bom"], BOM, EASY).astype(np.float32)}]
    nested = [{"bom": 1 - of["bom"].astype(np.float32)} for of in doubted([x], targets, folds, [BOM], CONFIG, EASY)]
    assert auc(at_once) > 0.65
    assert abs(auc(nested) - 0.5) < 0.05


def test_labels_in_two_folds_alone_are_doubted_by_nobody(noisy) -> None:
    x, targets, folds, _ = noisy
    few = {name: np.where((folds < 2)[:, None], target, np.nan) for name, target in targets.items()}
    found = doubted([x], few, folds, [BOM, SIGNS], CONFIG, EASY)
    assert not found[0]["bom"].any() and not found[1]["bom"].any()
    with pytest.raises(ValueError, match="2 folds: suspects can only weigh less where there are at least 3"):
        doubted([x], targets, folds, [BOM, SIGNS], replace(CONFIG, folds=2), EASY)
