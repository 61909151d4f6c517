import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.learning.folds import HOLDOUT, assign

ROWS = st.lists(st.tuples(st.integers(0, 40), st.sampled_from(["a", "b", None])), min_size=1, max_size=150)


def cohort(groups: int, seed: int) -> tuple[list[str], list[str]]:
    """Patients with 1 to 4 images; a quarter of them malignant, and a rarer third class."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 5, groups)
    strata = rng.choice(["benign", "malignant", "other"], groups, p=[0.7, 0.25, 0.05])
    names = [f"p{index}" for index in range(groups)]
    return list(np.repeat(names, sizes)), list(np.repeat(strata, sizes))


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, k=st.integers(2, 6), share=st.sampled_from([0.0, 0.15]), seed=st.integers(0, 5))
def test_a_group_never_splits_and_keeps_its_fold(
    rows: list[tuple[int, str | None]], k: int, share: float, seed: int
) -> None:
    groups, strata = [str(group) for group, _ in rows], [stratum for _, stratum in rows]
    half = len(rows) // 2
    first = assign(groups[:half], strata[:half], {}, k, share, seed)
    kept = dict(zip(groups[:half], map(int, first), strict=True))
    folds = assign(groups, strata, kept, k, share, seed)
    assert folds.dtype == np.int8 and set(folds) <= {*range(k), *([HOLDOUT] if share else [])}
    placed = dict(zip(groups, folds, strict=True))
    assert all(placed[group] == fold for group, fold in zip(groups, folds, strict=True))
    assert all(placed[group] == fold for group, fold in kept.items())
    assert np.array_equal(folds, assign(groups, strata, kept, k, share, seed))


def test_the_order_of_the_rows_does_not_matter() -> None:
    groups, strata = cohort(80, 0)
    shuffled = np.random.default_rng(1).permutation(len(groups))
    folds = assign([groups[i] for i in shuffled], [strata[i] for i in shuffled], {}, 5, 0.1, 3)
    assert np.array_equal(assign(groups, strata, {}, 5, 0.1, 3)[shuffled], folds)


@pytest.mark.parametrize("seed", range(5))
def test_sizes_and_strata_are_balanced_better_than_at_random(seed: int) -> None:
    groups, strata = cohort(400, seed)
    wanted = np.array([0.17] * 5 + [0.15])

    def imbalance(folds: np.ndarray) -> float:
        held = [[np.mean(folds[rows] == fold) for fold in (*range(5), HOLDOUT)] for rows in masks]
        return float(np.abs(np.array(held) / wanted - 1).max())

    masks = [np.array(strata) == name for name in ("benign", "malignant", "other")]
    folds = assign(groups, strata, {}, 5, 0.15, seed)
    shares = np.array([np.mean(folds == fold) for fold in (*range(5), HOLDOUT)])
    assert np.abs(shares - wanted).max() < 0.01

    rng = np.random.default_rng(seed)
    at_random = {name: rng.choice([*range(5), HOLDOUT], p=wanted) for name in set(groups)}
    assert imbalance(folds) < 0.5 * imbalance(np.array([at_random[name] for name in groups]))


def test_arrivals_fill_what_earlier_folds_lack() -> None:
    groups, strata = cohort(300, 7)
    placed: dict[str, int] = {}
    for stop in range(30, len(groups) + 30, 30):
        folds = assign(groups[:stop], strata[:stop], placed, 5, 0.1, 0)
        placed = dict(zip(groups, map(int, folds), strict=False))
    shares = np.array([np.mean(folds == fold) for fold in (*range(5), HOLDOUT)])
    assert np.abs(shares - np.array([0.18] * 5 + [0.1])).max() < 0.03


def test_nothing_and_nonsense() -> None:
    assert len(assign([], [], {}, 5, 0.1, 0)) == 0
    with pytest.raises(ValueError, match="one of each per row"):
        assign(["a"], [], {}, 5, 0.1, 0)
    with pytest.raises(ValueError, match="k >= 2"):
        assign(["a"], ["x"], {}, 1, 0.1, 0)
