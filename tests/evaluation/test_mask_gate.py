"""The gate of masks beside plain loops: which of two U-Nets a hold-out tells apart."""

import numpy as np
import pytest

from backend.evaluation.gate import GROUPS
from backend.evaluation.mask_gate import compare, judge, mean

N, CLASSES = 60, 3


def drawn(seed: int, level: float) -> np.ndarray:
    """Dice (N, CLASSES) around a level."""
    return np.clip(level + 0.1 * np.random.default_rng(seed).normal(size=(N, CLASSES)), 0, 1)


def plain(before: np.ndarray, after: np.ndarray, rows: np.ndarray) -> tuple[float, float]:
    """The two means over these rows, class by class and image by image."""
    classes: list[tuple[float, float]] = []
    for column in range(before.shape[1]):
        pairs = []
        for row in rows:
            one, two = before[row, column], after[row, column]
            if np.isnan(one) and np.isnan(two):
                continue
            pairs.append((1.0 if np.isnan(one) else one, 1.0 if np.isnan(two) else two))
        if pairs:
            classes.append(tuple(np.mean(pairs, axis=0)))
    return tuple(np.mean(classes, axis=0))


@pytest.fixture
def dice() -> tuple[np.ndarray, np.ndarray]:
    """Of two models, with classes that are nowhere in some images, or that one of the two alone draws."""
    before, after = drawn(1, 0.7), drawn(2, 0.72)
    before[:20, 0] = after[10:25, 0] = np.nan
    before[:, 2] = after[:, 2] = np.nan
    return before, after


def test_means_are_those_of_plain_loops(dice: tuple[np.ndarray, np.ndarray]) -> None:
    before, after = dice
    found = compare(before, after, [f"p{row}" for row in range(N)])
    assert (found.before, found.after) == pytest.approx(plain(before, after, np.arange(N)))
    assert np.isnan(mean(np.full((4, 2), np.nan), np.ones((2, 4)))).all()


def test_the_share_of_resamples_is_that_of_a_plain_loop_over_patients(dice: tuple[np.ndarray, np.ndarray]) -> None:
    before, after = dice
    patients, rng, worse, changes = np.arange(N) % 20, np.random.default_rng(5), [], []
    for _ in range(800):
        rows = np.concatenate([np.flatnonzero(patients == p) for p in rng.integers(0, 20, 20)])
        old, new = plain(before, after, rows)
        worse.append(new < old)
        changes.append(new - old)
    found = compare(before, after, [f"p{p}" for p in patients])
    assert found.p_worse == pytest.approx(np.mean(worse), abs=0.05)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(changes, [0.025, 0.975])), abs=0.01)


def test_a_worse_challenger_is_refused_and_an_equal_or_better_one_is_not() -> None:
    good, bad = drawn(1, 0.8), drawn(2, 0.6)
    groups, people = [f"p{row // 2}" for row in range(N)], np.arange(N) % 3 == 0
    refused = judge("mask", 4, bad, {3: good}, groups, people, 0.95)
    assert (refused.takes_over, refused.by, refused.against, refused.figure, refused.best) == (
        *(False, "test"),
        *(3, "dice", 3),
    )
    assert refused.p_worse == 1 and refused.high is not None and refused.high < 0
    assert (refused.groups, refused.n, refused.adjudicated) == (30, 60, 20)
    assert refused.reason == (
        f"Dice of mask {refused.after:.3f} against {refused.before:.3f} of v3, on 60 hold-out images in 30"
        " groups: worse in 100 % of the resamples (refused above 95 %); v3 stays in force"
    )
    better = judge("mask", 4, good, {3: bad}, groups, people, 0.95)
    assert better.takes_over and better.p_worse == 0 and better.best == 4
    same = judge("mask", 4, good, {3: good}, groups, people, 0.5)
    assert same.takes_over and same.p_worse == 0.5


def test_the_best_so_far_refuses_what_the_champion_would_let_pass() -> None:
    groups, people = [f"p{row}" for row in range(N)], np.zeros(N, dtype=bool)
    found = judge("mask", 4, drawn(3, 0.7), {3: drawn(2, 0.7), 2: drawn(1, 0.8)}, groups, people, 0.95)
    assert not found.takes_over and found.against == 2 and "v2, the best so far" in found.reason


def test_too_few_groups_or_images_let_it_pass_and_say_so() -> None:
    good, bad = drawn(1, 0.8), drawn(2, 0.2)
    few = judge("mask", 4, bad, {3: good}, [f"p{row % (GROUPS - 1)}" for row in range(N)], np.zeros(N, bool), 0.95)
    assert (few.takes_over, few.by, few.groups) == (True, "rule", GROUPS - 1)
    assert few.reason == (
        f"no test against v3 is possible: the hold-out has {N} images of mask in {GROUPS - 1} groups, and at"
        f" least {GROUPS} are needed"
    )
    empty = np.full((N, 1), np.nan)
    nothing = judge("mask", 4, empty, {3: empty}, [f"p{row}" for row in range(N)], np.zeros(N, bool), 0.95)
    assert nothing.takes_over and nothing.by == "rule"
