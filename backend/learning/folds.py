"""Folds by group, stratified, and stable: a patient never changes sides."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

HOLDOUT = -1


def assign(
    groups: Sequence[str],
    strata: Sequence[Hashable],
    existing: Mapping[str, int],
    k: int,
    holdout_share: float,
    seed: int,
) -> NDArray[np.int8]:
    """Give each of N rows the fold of its group: int8 (N,), 0..k-1 or HOLDOUT.

    Groups in `existing` keep their fold. The others are placed largest first, each where it lowers
    the chi-square distance between what the folds hold and their share of every stratum and of all rows
    most (the greedy rule of scikit-learn's StratifiedGroupKFold, with a hold-out and a memory). The order
    of the rows does not matter; ties are broken by `seed`.

    Raises ValueError for lengths that differ, a share outside [0, 1) or k below 2.
    """
    if len(groups) != len(strata):
        raise ValueError(f"{len(groups)} groups but {len(strata)} strata: one of each per row")
    if k < 2 or not 0 <= holdout_share < 1:
        raise ValueError(f"need k >= 2 and a hold-out share in [0, 1), not k = {k} and {holdout_share}")
    if not groups:
        return np.zeros(0, dtype=np.int8)
    bins = [*range(k), HOLDOUT] if holdout_share > 0 else list(range(k))
    shares = np.array([holdout_share if fold == HOLDOUT else (1 - holdout_share) / k for fold in bins])
    names, group_of_row = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    stratum_of_row = np.unique(np.array([repr(stratum) for stratum in strata]), return_inverse=True)[1]

    # Rows per group and stratum; the last column counts all rows, so that sizes are balanced as well.
    counts = np.zeros((len(names), stratum_of_row.max() + 2))
    np.add.at(counts, (group_of_row, stratum_of_row), 1)
    counts[:, -1] = counts[:, :-1].sum(axis=1)
    wanted = shares[:, None] * counts.sum(axis=0)

    fold_of_group = np.zeros(len(names), dtype=np.int8)
    held = np.zeros_like(wanted)
    new = []
    for index, name in enumerate(names):
        if str(name) not in existing:
            new.append(index)
            continue
        fold_of_group[index] = existing[str(name)]
        if existing[str(name)] in bins:
            held[bins.index(existing[str(name)])] += counts[index]

    shuffled = np.random.default_rng(seed).permutation(np.array(new, dtype=np.intp))
    ties = np.random.default_rng([seed, 1]).random((len(shuffled), len(bins))) * 1e-9
    largest_first = shuffled[np.argsort(-counts[shuffled, -1], kind="stable")]
    for index, tie in zip(largest_first, ties, strict=True):
        rows = counts[index]
        growth = ((2 * (held - wanted) + rows) * rows / wanted).sum(axis=1)
        chosen = int(np.argmin(growth + tie))
        held[chosen] += rows
        fold_of_group[index] = bins[chosen]
    return fold_of_group[group_of_row]
