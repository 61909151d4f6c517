"""The gate beside brute force: which of two or three models a hold-out tells apart."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, roc_auc_score

from backend.evaluation.gate import GROUPS, Verdict, judge, untested
from tasks.schema import Head

BOM = Head("bom", "image", "single", ("benign", "malignant"), 1.0, False, None, "malignant", True)


def model(truth: np.ndarray, skill: float, seed: int) -> np.ndarray:
    """Probabilities (N, 2) of a model: the higher the skill, the better they rank."""
    noise = np.random.default_rng(seed).normal(size=len(truth))
    malignant = 1 / (1 + np.exp(-(skill * (2 * truth - 1) + noise)))
    return np.stack([1 - malignant, malignant], axis=1).astype(np.float32)


def verdict(truth: np.ndarray, after: np.ndarray, *before: np.ndarray, groups: int = 0, level: float = 0.95) -> Verdict:
    names = [f"p{row % groups if groups else row}" for row in range(len(truth))]
    opponents = dict(zip((3, 2), before, strict=False))
    checked = np.arange(len(truth)) % 2 == 0
    return judge(BOM, 4, after, opponents, np.eye(2)[truth], names, checked, level)


def test_a_worse_model_is_refused_and_an_equal_or_better_one_is_not() -> None:
    truth = np.random.default_rng(0).integers(0, 2, 200)
    good, bad = model(truth, 1.5, 1), model(truth, 0.3, 2)
    refused = verdict(truth, bad, good, groups=100)
    assert (refused.takes_over, refused.by, refused.against, refused.figure) == (False, "test", 3, "auc")
    assert refused.before == pytest.approx(roc_auc_score(truth, good[:, 1]))
    assert refused.after == pytest.approx(roc_auc_score(truth, bad[:, 1]))
    assert refused.high is not None and refused.high < 0 and refused.p_worse == 1.0
    assert (refused.groups, refused.n, refused.adjudicated) == (100, 200, 100)
    assert refused.best == 3 and "v3 stays in force" in refused.reason
    assert verdict(truth, good, bad, groups=100).takes_over
    same = verdict(truth, good, good, groups=100, level=0.5)
    assert same.takes_over and same.p_worse == 0.5 and same.best == 4


def test_the_share_of_resamples_is_that_of_a_plain_loop_over_patients() -> None:
    truth = np.random.default_rng(0).integers(0, 2, 90)
    before, after = model(truth, 1.2, 1), model(truth, 1.0, 2)
    rng, patients, worse = np.random.default_rng(9), np.arange(90) % 30, []
    for _ in range(600):
        rows = np.concatenate([np.flatnonzero(patients == p) for p in rng.integers(0, 30, 30)])
        change = roc_auc_score(truth[rows], after[rows, 1]) - roc_auc_score(truth[rows], before[rows, 1])
        worse.append(1.0 if change < 0 else 0.5 if change == 0 else 0.0)
    found = verdict(truth, after, before, groups=30)
    assert found.p_worse == pytest.approx(np.mean(worse), abs=0.05)


@settings(max_examples=8, deadline=None)
@given(st.floats(0.5, 1.0), st.integers(0, 5))
def test_the_level_alone_decides_what_the_share_means(level: float, seed: int) -> None:
    truth = np.arange(60) % 2
    found = verdict(truth, model(truth, 0.8, seed), model(truth, 1.0, 7), level=level)
    assert found.takes_over == (found.p_worse <= level)
    assert found == verdict(truth, model(truth, 0.8, seed), model(truth, 1.0, 7), level=level)


def test_at_level_one_nothing_is_refused() -> None:
    truth = np.arange(60) % 2
    assert verdict(truth, model(truth, -2.0, 1), model(truth, 3.0, 2), level=1.0).takes_over


def test_without_an_auc_macro_f1_decides() -> None:
    truth = np.zeros(40, dtype=int)
    good, bad = model(truth, 3.0, 1), model(truth, -1.0, 2)
    found = verdict(truth, bad, good)
    assert (found.takes_over, found.figure) == (False, "macro_f1")
    assert found.after == pytest.approx(f1_score(truth, bad.argmax(axis=1), average="macro"))


def test_small_steps_down_do_not_add_up() -> None:
    """Each model is a little worse than the one before: the one in force lets it pass, the best so far does not."""
    truth = np.random.default_rng(0).integers(0, 2, 400)
    best, champion, challenger = model(truth, 1.0, 1), model(truth, 0.85, 6), model(truth, 0.8, 5)
    alone, both = verdict(truth, challenger, champion), verdict(truth, challenger, champion, best)
    assert alone.takes_over
    assert (both.takes_over, both.against) == (False, 2)
    assert "v2, the best so far" in both.reason and "v3 stays in force" in both.reason


def test_the_best_so_far_is_kept_until_one_is_better() -> None:
    truth = np.random.default_rng(0).integers(0, 2, 60)
    strong, weak = model(truth, 1.0, 1), model(truth, 0.9, 1)
    passes = verdict(truth, weak, weak, strong, level=1.0)
    assert passes.takes_over and passes.best == 2
    assert verdict(truth, strong, weak, strong).best == 4


def test_too_little_to_test_on_takes_over_and_says_so() -> None:
    truth = np.random.default_rng(0).integers(0, 2, 200)
    few = verdict(truth, model(truth, -2.0, 1), model(truth, 2.0, 2), groups=GROUPS - 1)
    assert (few.takes_over, few.by, few.p_worse) == (True, "rule", None)
    assert "200 labels of bom in 9 groups" in few.reason
    blank = np.full((200, 2), np.nan)
    none = judge(BOM, 4, model(truth, 1.0, 1), {3: model(truth, 1.0, 2)}, blank, ["p"] * 200, truth > 0, 0.95)
    assert (none.takes_over, none.n, none.groups) == (True, 0, 0)
    assert untested(1, "the first model") == Verdict(True, "rule", "the first model", 1)
