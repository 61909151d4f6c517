"""One grouped K-fold fit: out-of-fold probabilities for labelled rows, an ensemble for all others.

No out-of-fold probability comes from weights that saw the row or another row of its group: neither the
heads' nor the backbone's. `folds` are those of `folds.assign`, HOLDOUT rows train nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from backend.learning import calibrate, heads
from backend.learning.arrays import Float32, Members, Rows, Targets, Weights
from backend.learning.config import LearningConfig
from backend.learning.folds import HOLDOUT
from tasks.schema import Head

CLEAN_ENOUGH = 50
"""From so many clean labels on, a head's temperature is fitted on them alone."""


Part = TypeVar("Part")


@dataclass(frozen=True)
class CrossFit:
    """K sets of S linear heads, set k fitted without fold k; a temperature and the kind of each head, by name."""

    folds: tuple[heads.LinearHeads, ...]
    temperatures: Mapping[str, float]
    multiple: Mapping[str, bool]


@dataclass(frozen=True)
class Block:
    """Calibrated probabilities, per head (M, n, C), of the images in `rows` (n,), all from the same M members.

    out_of_fold: these rows are labelled, and the members are those that saw neither them nor their group.
    """

    rows: Rows
    members: Members
    out_of_fold: bool


def cross_fit(
    embeddings: Sequence[Float32],
    targets: Targets,
    folds: NDArray[np.int8],
    schema_heads: Sequence[Head],
    config: LearningConfig,
    groups: Sequence[str] | None = None,
    row_weights: Sequence[Weights] | None = None,
    clean: Mapping[str, NDArray[np.bool_]] | None = None,
) -> CrossFit:
    """Fit K sets of heads and the temperatures.

    embeddings: K arrays (N, D), array k from the backbone that did not see fold k; or a single one, from
    a backbone that saw no label. targets: per head (N, C), NaN rows unlabelled. groups as in `heads.fit`, and
    row_weights too: K of them, number k for the heads fitted without fold k, or a single one for all. clean: per
    head (N,), labels a person has checked, of rows drawn at random: those of rows that were picked because they
    look wrong would teach the wrong confidence. Temperatures leave the weights aside: labels that weigh little
    are those that the model contradicts, and without them it would seem surer than it is. Raises ValueError where
    there are neither one nor K embeddings.
    """
    _check_members(embeddings, config.folds)
    labelled = labelled_rows(targets)
    trainable = labelled & (folds != HOLDOUT)
    fitted = []
    for fold in range(config.folds):
        rows = np.flatnonzero(trainable & (folds != fold))
        members = heads.fit(
            of_fold(embeddings, fold),
            targets,
            rows,
            schema_heads,
            config.head_seeds,
            seed=config.seed * config.folds + fold,
            groups=groups,
            row_weights=None if row_weights is None else of_fold(row_weights, fold),
        )
        fitted.append(members)

    unseen = _unseen_logits(fitted, embeddings, folds, trainable)
    found = temperatures(unseen, targets, trainable, schema_heads, clean)
    return CrossFit(tuple(fitted), found, {head.name: head.multiple for head in schema_heads})


def temperatures(
    unseen: Members,
    targets: Targets,
    trainable: NDArray[np.bool_],
    schema_heads: Sequence[Head],
    clean: Mapping[str, NDArray[np.bool_]] | None,
) -> dict[str, float]:
    """Each head's temperature, from out-of-fold logits (S, N, C) of the `trainable` rows (N,); else as `cross_fit`."""
    found = {}
    for head in schema_heads:
        known = trainable & ~np.isnan(targets[head.name]).any(axis=1)
        if clean is not None and (known & clean[head.name]).sum() >= CLEAN_ENOUGH:
            known &= clean[head.name]
        found[head.name] = calibrate.temperature(unseen[head.name][:, known], targets[head.name][known], head.multiple)
    return found


def predict(
    crossfit: CrossFit, embeddings: Sequence[Float32], folds: NDArray[np.int8], labelled: NDArray[np.bool_]
) -> list[Block]:
    """Every row's calibrated probabilities, in at most K + 1 blocks.

    Labelled rows of fold k get the S members of set k, which never saw their group. Unlabelled and
    hold-out rows get all K x S members, in the order of the folds.
    """
    _check_members(embeddings, len(crossfit.folds))
    blocks = []
    for fold, members in enumerate(crossfit.folds):
        rows = np.flatnonzero(labelled & (folds == fold))
        if len(rows):
            logits = heads.predict_logits(members, of_fold(embeddings, fold)[rows])
            blocks.append(Block(rows, _calibrated(crossfit, logits), out_of_fold=True))
    rows = np.flatnonzero(~labelled | (folds == HOLDOUT))
    if len(rows):
        blocks.append(Block(rows, ensemble(crossfit, [part[rows] for part in embeddings]), out_of_fold=False))
    return blocks


def ensemble(crossfit: CrossFit, embeddings: Sequence[Float32]) -> Members:
    """Calibrated probabilities of all K x S members, per head (K x S, n, C), for rows that trained none of them."""
    _check_members(embeddings, len(crossfit.folds))
    parts = [heads.predict_logits(members, of_fold(embeddings, fold)) for fold, members in enumerate(crossfit.folds)]
    logits = {name: np.concatenate([part[name] for part in parts]) for name in crossfit.multiple}
    return _calibrated(crossfit, logits)


def mean_probabilities(blocks: Sequence[Block], count: int) -> dict[str, Float32]:
    """Per head (count, C): the mean over each row's members. Rows that are in no block are NaN."""
    found: dict[str, Float32] = {}
    for block in blocks:
        for name, members in block.members.items():
            if name not in found:
                found[name] = np.full((count, members.shape[2]), np.nan, dtype=np.float32)
            found[name][block.rows] = members.mean(axis=0)
    return found


def labelled_rows(targets: Targets) -> NDArray[np.bool_]:
    """(N,): which rows have a label of at least one head."""
    known: NDArray[np.bool_] = np.any([~np.isnan(truth).any(axis=1) for truth in targets.values()], axis=0)
    return known


def _unseen_logits(
    fitted: Sequence[heads.LinearHeads],
    embeddings: Sequence[Float32],
    folds: NDArray[np.int8],
    trainable: NDArray[np.bool_],
) -> Members:
    """Out-of-fold logits, per head (S, N, C); NaN for rows that are not trained on."""
    found: Members = {}
    for fold, members in enumerate(fitted):
        rows = np.flatnonzero(trainable & (folds == fold))
        for name, logits in heads.predict_logits(members, of_fold(embeddings, fold)[rows]).items():
            if name not in found:
                found[name] = np.full((len(logits), len(folds), logits.shape[2]), np.nan, dtype=np.float32)
            found[name][:, rows] = logits
    return found


def _calibrated(crossfit: CrossFit, logits: Members) -> Members:
    return {
        name: calibrate.apply(scores, crossfit.temperatures[name], crossfit.multiple[name])
        for name, scores in logits.items()
    }


def of_fold(parts: Sequence[Part], fold: int) -> Part:
    """The part of one fold, where each has its own; else the one of all."""
    return parts[fold] if len(parts) > 1 else parts[0]


def _check_members(embeddings: Sequence[Float32], folds: int) -> None:
    if len(embeddings) not in (1, folds):
        raise ValueError(f"{len(embeddings)} backbones for {folds} folds: there must be one per fold, or one for all")
