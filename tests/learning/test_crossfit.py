"""No label may reach its own out-of-fold score, in either learning mode; and the test can see it when one does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from backend.learning import calibrate, heads
from backend.learning.arrays import Weights
from backend.learning.backbone import create, save
from backend.learning.config import LearningConfig
from backend.learning.crossfit import cross_fit, mean_probabilities, predict
from backend.learning.doubted import doubted
from backend.learning.fold_backbones import embed_all, predict_new, train_backbones
from backend.learning.folds import HOLDOUT, assign
from backend.learning.training import train_backbone

CONFIG = LearningConfig(backbone="test_resnet", weights="scratch", image_size=32, folds=3, head_seeds=2, epochs=10)


def within_fold_auc(labels: np.ndarray, probabilities: np.ndarray, folds: np.ndarray) -> float:
    """Mean over the folds; the hold-out is none."""
    return float(
        np.mean([roc_auc_score(labels[folds == k], probabilities[folds == k]) for k in sorted(set(folds) - {HOLDOUT})])
    )


def out_of_fold(
    embeddings: Sequence[np.ndarray],
    labels: np.ndarray,
    folds: np.ndarray,
    cohort,
    weights: Sequence[Weights] | None = None,
) -> np.ndarray:
    targets = cohort.targets(labels)
    fitted = cross_fit(embeddings, targets, folds, cohort.heads, CONFIG, groups=cohort.groups, row_weights=weights)
    blocks = predict(fitted, embeddings, folds, np.ones(len(labels), dtype=bool))
    return mean_probabilities(blocks, len(labels))["bom"][:, 1]


@pytest.fixture(scope="module")
def folds(cohort) -> np.ndarray:
    return assign(cohort.groups, list(cohort.labels), {}, CONFIG.folds, 0.1, seed=0)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("weights") / "pretrained.safetensors"
    save(create(CONFIG, seed=9), path)
    return str(path)


@pytest.mark.parametrize("truth", [False, True], ids=["permuted labels", "true labels"])
@pytest.mark.parametrize("mode", ["frozen from scratch", "frozen, pretrained", "full from scratch"])
def test_no_label_leaks_into_its_own_score(
    mode: str, truth: bool, cohort, folds: np.ndarray, pretrained: str, tmp_path: Path
) -> None:
    assert len(cohort.labels) >= 1000
    labels = cohort.labels if truth else cohort.permuted(seed=1)
    kind, start = mode.replace(",", " from").split(" from ")
    config = replace(
        CONFIG,
        mode=kind,  # type: ignore[arg-type]
        weights="scratch" if start == "scratch" else pretrained,
    )
    targets = cohort.targets(labels)
    if kind == "frozen":
        # The backbones come from an earlier cycle, in which a third of the labels was not there yet.
        earlier = {name: one_hot.copy() for name, one_hot in targets.items()}
        for one_hot in earlier.values():
            one_hot[::3] = np.nan
        backbones = train_backbones(cohort.pixels, earlier, folds, cohort.heads, config, tmp_path)
    else:
        backbones = train_backbones(cohort.pixels, targets, folds, cohort.heads, config, tmp_path)
    assert len(backbones) == (1 if mode == "frozen, pretrained" else CONFIG.folds)
    embeddings = embed_all(backbones, cohort.pixels)
    # As the labels are, and without those that the models contradict, be it by a hair.
    doubt = doubted(embeddings, targets, folds, cohort.heads, config, 0.5, cohort.groups)
    without = [{name: 1 - rows.astype(np.float32) for name, rows in of.items()} for of in doubt]
    for weights in (None, without):
        auc = within_fold_auc(labels, out_of_fold(embeddings, labels, folds, cohort, weights), folds)
        if truth:
            assert auc > 0.8
        else:
            assert abs(auc - 0.5) < 0.1


def test_folds_that_split_groups_are_caught(cohort, tmp_path: Path) -> None:
    labels = cohort.permuted(seed=1)
    split = np.random.default_rng(0).integers(0, CONFIG.folds, len(labels)).astype(np.int8)
    targets = cohort.targets(labels)
    backbones = train_backbones(cohort.pixels, targets, split, cohort.heads, CONFIG, tmp_path)
    probabilities = out_of_fold(embed_all(backbones, cohort.pixels), labels, split, cohort)
    assert within_fold_auc(labels, probabilities, split) > 0.7


def test_backbones_that_saw_the_rows_are_caught(cohort, folds: np.ndarray) -> None:
    labels = cohort.permuted(seed=1)
    seen = train_backbone(cohort.pixels, cohort.targets(labels), np.arange(len(labels)), cohort.heads, CONFIG, seed=0)
    probabilities = out_of_fold(embed_all([seen], cohort.pixels), labels, folds, cohort)
    assert within_fold_auc(labels, probabilities, folds) > 0.7


@pytest.fixture(scope="module")
def small():
    """Embeddings of one backbone per fold that tell which backbone it was, with labels of two heads."""
    rng = np.random.default_rng(0)
    folds = np.repeat([0, 1, 2, HOLDOUT], 90).astype(np.int8)
    signal = rng.normal(size=(360, 6)).astype(np.float32)
    embeddings = [signal + 0.1 * rng.normal(size=(360, 6)).astype(np.float32) for _ in range(3)]
    bom = (signal[:, 0] + rng.normal(size=360) > 0).astype(int)
    targets = {"bom": np.eye(2, dtype=np.float32)[bom], "signs": np.eye(2, dtype=np.float32)[bom]}
    targets["signs"][folds == 2] = np.nan
    labelled = rng.random(360) < 0.7
    for one_hot in targets.values():
        one_hot[~labelled] = np.nan
    return embeddings, targets, folds, labelled


def test_each_row_is_in_one_block_with_the_members_it_may_have(small, cohort) -> None:
    embeddings, targets, folds, labelled = small
    fitted = cross_fit(embeddings, targets, folds, cohort.heads, CONFIG)
    blocks = predict(fitted, embeddings, folds, labelled)
    assert np.array_equal(np.sort(np.concatenate([block.rows for block in blocks])), np.arange(360))
    for fold, block in enumerate(blocks[:-1]):
        assert block.out_of_fold and np.array_equal(block.rows, np.flatnonzero(labelled & (folds == fold)))
        logits = heads.predict_logits(fitted.folds[fold], embeddings[fold][block.rows])["bom"]
        assert np.allclose(block.members["bom"], calibrate.apply(logits, fitted.temperatures["bom"], False), atol=1e-6)
    assert not blocks[-1].out_of_fold and blocks[-1].members["bom"].shape == (6, len(blocks[-1].rows), 2)
    means = mean_probabilities(blocks, 360)
    assert np.allclose(means["bom"].sum(axis=1), 1, atol=1e-5) and np.isfinite(means["signs"]).all()
    assert np.isnan(mean_probabilities(blocks[:1], 360)["bom"]).any()


def test_heads_of_a_fold_do_not_depend_on_its_labels_nor_on_the_holdout(small, cohort) -> None:
    embeddings, targets, folds, _ = small
    fitted = cross_fit(embeddings, targets, folds, cohort.heads, CONFIG)
    for fold in (0, HOLDOUT):
        flipped = {name: one_hot.copy() for name, one_hot in targets.items()}
        for one_hot in flipped.values():
            one_hot[folds == fold] = one_hot[folds == fold, ::-1]
        again = cross_fit(embeddings, flipped, folds, cohort.heads, CONFIG)
        assert np.array_equal(fitted.folds[max(fold, 0)].weights, again.folds[max(fold, 0)].weights)
        assert (fitted.temperatures == again.temperatures) == (fold == HOLDOUT)


def test_temperature_follows_the_clean_labels_once_there_are_50(small, cohort) -> None:
    embeddings, targets, folds, labelled = small
    wrong = {name: one_hot.copy() for name, one_hot in targets.items()}
    noisy = np.random.default_rng(1).random(360) < 0.3
    for one_hot in wrong.values():
        one_hot[noisy] = one_hot[noisy, ::-1]
    clean = labelled & ~noisy & (folds != HOLDOUT)
    assert clean.sum() >= 50

    def of_each(rows: np.ndarray) -> dict[str, np.ndarray]:
        return {head.name: rows for head in cohort.heads}

    everything = cross_fit(embeddings, wrong, folds, cohort.heads, CONFIG).temperatures["bom"]
    few = np.flatnonzero(clean)[:49]
    assert cross_fit(
        embeddings, wrong, folds, cohort.heads, CONFIG, clean=of_each(np.isin(np.arange(360), few))
    ).temperatures["bom"] == pytest.approx(everything)
    taught = cross_fit(embeddings, wrong, folds, cohort.heads, CONFIG, clean=of_each(clean))
    assert taught.temperatures["bom"] < everything


def test_new_images_get_every_member(cohort, folds: np.ndarray, tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=10)
    targets = cohort.targets(cohort.labels)
    backbones = train_backbones(cohort.pixels, targets, folds, cohort.heads, config, tmp_path)
    embeddings = embed_all(backbones, cohort.pixels)
    fitted = cross_fit(embeddings, targets, folds, cohort.heads, config)
    nobody = predict(fitted, embeddings, folds, np.zeros(len(folds), dtype=bool))
    live = predict_new(backbones, fitted, cohort.pixels[:7])
    assert live["bom"].shape == (6, 7, 2)
    assert np.allclose(live["bom"], nobody[0].members["bom"][:, :7], atol=0.02)


def test_a_wrong_number_of_backbones_is_refused(small, cohort) -> None:
    embeddings, targets, folds, _ = small
    with pytest.raises(ValueError, match="2 backbones for 3 folds"):
        cross_fit(embeddings[:2], targets, folds, cohort.heads, CONFIG)
