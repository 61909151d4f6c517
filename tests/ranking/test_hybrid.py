"""The hybrid score and the greedy batch, beside a naive recomputation after each pick."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skactiveml.pool import k_greedy_center

from tasks.ranking.disagreement import disagreement
from tasks.ranking.hybrid import FIRST_CHUNK, PRESETS, Reason, Weights, greedy, task_scores, weights_of
from tasks.ranking.uncertainty import NoSpread, uncertainty
from tasks.schema import Head


def head(name: str, classes: int, weight: float, kind: str = "single", ordinal: bool = False) -> Head:
    names = tuple(str(c) for c in range(classes))
    return Head(name, "image", kind, names, weight, ordinal, None, None, required=True)


HEADS = (head("bom", 2, 0.9), head("tirads", 5, 0.06, "rating", ordinal=True), head("foci", 4, 0.04, "multiple"))


def drawn(tasks: int, count: int = 3, seed: int = 0) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    members, targets = {}, {}
    for each in HEADS:
        classes = len(each.classes)
        if each.multiple:
            members[each.name] = rng.random((count, tasks, classes), dtype=np.float32)
            targets[each.name] = (rng.random((tasks, classes)) < 0.3).astype(np.float32)
        else:
            members[each.name] = rng.dirichlet(np.ones(classes), (count, tasks)).astype(np.float32)
            targets[each.name] = np.eye(classes, dtype=np.float32)[rng.integers(classes, size=tasks)]
        targets[each.name][rng.random(tasks) < 0.3] = np.nan
    return members, targets


@pytest.mark.parametrize("measure", ["entropy", "bald"])
def test_a_tasks_scores_are_the_weighted_sums_over_heads(measure: str) -> None:
    members, targets = drawn(60)
    scores = task_scores(HEADS, members, targets, measure)
    unsure, contradicted = np.zeros(60), np.zeros(60)
    for each in HEADS:
        unsure += each.weight * uncertainty(measure, members[each.name], each.multiple)
        contradicted += each.weight * disagreement(members[each.name].mean(axis=0), targets[each.name], each)
    np.testing.assert_allclose(scores.uncertainty, unsure, atol=1e-6)
    np.testing.assert_allclose(scores.disagreement, contradicted, atol=1e-6)
    assert scores.uncertainty.dtype == scores.disagreement.dtype == np.float32
    assert scores.head_uncertainty.shape == scores.head_disagreement.shape == (60, 3)
    base = scores.base(PRESETS["find-errors"])
    np.testing.assert_allclose(base, 0.1 * unsure + 0.8 * contradicted, atol=1e-6)
    assert base.min() >= 0 and base.max() <= 1


def test_a_head_without_a_current_label_adds_nothing_whatever_its_weight() -> None:
    members, targets = drawn(1, count=1)
    members["bom"][:] = [0.97, 0.03]
    members["tirads"][:] = [0.97, 0.03, 0, 0, 0]
    wrong = {"bom": np.array([[0, 1]]), "tirads": np.array([[0, 0, 0, 0, 1]])}
    blank = {name: np.full_like(rows, np.nan) for name, rows in targets.items()}
    assert task_scores(HEADS, members, blank | {"tirads": wrong["tirads"]}).disagreement == pytest.approx(
        [0.06 * 0.9925]
    )
    assert task_scores(HEADS, members, blank | wrong).disagreement == pytest.approx([0.9 * 0.97 + 0.06 * 0.9925])
    assert task_scores(HEADS, members, wrong).disagreement == pytest.approx([0.9 * 0.97 + 0.06 * 0.9925])
    assert task_scores(HEADS, members, blank).disagreement.tolist() == [0]


def test_a_head_that_is_not_learnt_yet_adds_nothing() -> None:
    members, targets = drawn(5)
    del members["foci"]
    scores = task_scores(HEADS, members, targets)
    assert scores.heads == ("bom", "tirads", "foci")
    assert not scores.head_uncertainty[:, 2].any() and not scores.head_disagreement[:, 2].any()
    with pytest.raises(ValueError, match="nothing to score"):
        task_scores(HEADS, {}, targets)


def test_what_does_not_fit_is_named() -> None:
    members, targets = drawn(5, count=1)
    with pytest.raises(NoSpread, match="'bom'"):
        task_scores(HEADS, members, targets, "bald")
    members["tirads"] = members["tirads"][:, :4]
    with pytest.raises(ValueError, match="'tirads': 4"):
        task_scores(HEADS, members, targets)


def test_the_reason_is_the_largest_term() -> None:
    members = {"bom": np.array([[[0.95, 0.05], [0.5, 0.5], [1, 0]]], dtype=np.float32)}
    targets = {"bom": np.array([[0, 1], [1, 0], [1, 0]], dtype=np.float32)}
    scores = task_scores((head("bom", 2, 1.0),), members, targets)
    weights = PRESETS["document"]
    assert scores.reason(0, weights, 0.3) == Reason("disagreement", "bom", pytest.approx(0.95))
    assert scores.reason(1, weights, 0.3) == Reason("uncertainty", "bom", pytest.approx(1.0))
    assert scores.reason(2, weights, 0.3) == Reason("diversity", None, 0.3)
    assert scores.reason(0, Weights(0, 0, 1), 0.3).part == "diversity"


def naive_scores(base: np.ndarray, tasks: np.ndarray, gamma: float, references: np.ndarray) -> np.ndarray:
    """base + gamma V of every row in float64, all distances anew."""
    lengths = np.linalg.norm(tasks, axis=1, keepdims=True)
    unit = np.divide(tasks, lengths, where=lengths > 0, out=np.zeros_like(tasks))
    lengths = np.linalg.norm(references, axis=1, keepdims=True)
    against = np.divide(references, lengths, where=lengths > 0, out=np.zeros_like(references))
    nearest = (unit @ against.T).max(axis=1, initial=0)
    return base + gamma * np.where(unit.any(axis=1), np.clip(1 - nearest, 0, 1), 0)


def assert_greedy(base: np.ndarray, tasks: np.ndarray, gamma: float, batch: int, reviewed: np.ndarray) -> None:
    order, score, diversity = greedy(base, tasks, gamma, batch, reviewed)
    assert len(set(order.tolist())) == len(order) == min(batch, len(base))
    exact_tasks, references = tasks.astype(float), reviewed.astype(float)
    for pick, row in enumerate(order):
        naive = naive_scores(base.astype(float), exact_tasks, gamma, references)
        naive[order[:pick]] = -np.inf
        assert naive[row] >= naive.max() - 3e-5
        assert score[pick] == pytest.approx(naive[row], abs=3e-5)
        assert score[pick] == pytest.approx(base[row] + gamma * diversity[pick], abs=1e-6)
        references = np.concatenate([references, exact_tasks[[row]]])
    assert (np.diff(score) <= 1e-6).all()


# Whole numbers make many exact duplicates, opposites and zero vectors.
SMALL = st.integers(1, 30).flatmap(
    lambda n: st.tuples(
        arrays(np.float32, n, elements=st.sampled_from([0, 0.25, 0.5, 1])),
        arrays(np.float32, (n, 3), elements=st.integers(-2, 2)),
        arrays(np.float32, st.tuples(st.integers(0, 6), st.just(3)), elements=st.integers(-2, 2)),
    )
)


@given(SMALL, st.sampled_from([0.0, 0.2, 1.0]), st.integers(0, 35))
def test_greedy_is_the_naive_recomputation(
    given_arrays: tuple[np.ndarray, np.ndarray, np.ndarray], gamma: float, batch: int
) -> None:
    base, tasks, reviewed = given_arrays
    assert_greedy(base, tasks, gamma, batch, reviewed)


@pytest.mark.parametrize("spread", [0.0, 0.02, 1.0])
def test_greedy_is_the_naive_recomputation_beyond_one_chunk(spread: float) -> None:
    rng = np.random.default_rng(0)
    tasks = rng.standard_normal((5 * FIRST_CHUNK, 12)).astype(np.float32)
    base = spread * rng.random(len(tasks)).astype(np.float32)
    assert_greedy(base, tasks, 0.3, 60, rng.standard_normal((40, 12)).astype(np.float32))


def test_diversity_alone_is_scikit_activemls_k_greedy_center() -> None:
    rng = np.random.default_rng(0)
    tasks = np.abs(rng.standard_normal((400, 16)))  # cosines above 0, where clipping changes nothing
    tasks /= np.linalg.norm(tasks, axis=1, keepdims=True)
    labels = np.full(400, np.nan)
    labels[:5] = 0
    theirs, _ = k_greedy_center(tasks, labels, batch_size=40, random_state=0)
    base = np.where(np.isnan(labels), 0, -10)  # reviewed rows are out of the running
    ours = greedy(base, tasks.astype(np.float32), 1.0, 40, tasks[:5].astype(np.float32)).order
    assert ours.tolist() == theirs.tolist()


@pytest.mark.parametrize("seed", range(5))
def test_forty_tight_clusters_of_which_24_are_open(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cluster = rng.permutation(np.repeat(np.arange(40), 10))
    tasks = (np.eye(40)[cluster] + 0.01 * rng.standard_normal((400, 40))).astype(np.float32)
    is_open = cluster < 24
    order = greedy(np.zeros(is_open.sum()), tasks[is_open], 1.0, 24, tasks[~is_open]).order
    assert set(cluster[is_open][order]) == set(range(24))


def test_the_order_of_tasks_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    tasks, base = rng.standard_normal((700, 20)).astype(np.float32), rng.random(700).astype(np.float32)
    shuffle = rng.permutation(700)
    straight, shuffled = greedy(base, tasks, 0.5, 50), greedy(base[shuffle], tasks[shuffle], 0.5, 50)
    assert shuffle[shuffled.order].tolist() == straight.order.tolist()


def test_a_duplicate_of_a_selected_task_is_left_with_its_base() -> None:
    rng = np.random.default_rng(0)
    tasks = np.repeat(rng.standard_normal((20, 64)).astype(np.float32), 2, axis=0)
    order, _, diversity = greedy(np.full(40, 0.5), tasks, 0.2, 40)
    assert order[0] == 0
    assert (order[:20] % 2 == 0).all()  # of a pair the first comes first
    assert order[20:].tolist() == list(range(1, 40, 2)) and diversity[20:].tolist() == [0] * 20


@pytest.mark.parametrize("diversity", ["nearest", "coverage"])
def test_ties_go_to_the_first_task(diversity: str) -> None:
    same = np.ones((600, 4), dtype=np.float32)
    assert greedy(np.zeros(600), same, 1.0, 300, diversity=diversity).order.tolist() == list(range(300))
    assert greedy(np.zeros(600), same, 0.0, 3, diversity=diversity).order.tolist() == [0, 1, 2]


@pytest.mark.parametrize("diversity", ["nearest", "coverage"])
def test_a_pool_smaller_than_the_batch(diversity: str) -> None:
    assert greedy(np.zeros(1), np.ones((1, 4), dtype=np.float32), 1.0, 100, diversity=diversity).order.tolist() == [0]
    assert greedy(np.zeros(0), np.ones((0, 4), dtype=np.float32), 1.0, 100, diversity=diversity).order.tolist() == []
    blank = greedy(np.zeros(3), np.zeros((3, 4), dtype=np.float32), 1.0, 100, diversity=diversity)
    assert blank.order.tolist() == [0, 1, 2] and blank.score.tolist() == [0, 0, 0]


def test_greedy_names_what_it_cannot_use() -> None:
    tasks = np.ones((3, 2), dtype=np.float32)
    with pytest.raises(ValueError, match="row 1"):
        greedy(np.array([0, np.nan, 0]), tasks, 0.2, 2)
    with pytest.raises(ValueError, match=r"\(4,\)"):
        greedy(np.zeros(4), tasks, 0.2, 2)
    with pytest.raises(ValueError, match=r"\(5, 7\)"):
        greedy(np.zeros(3), tasks, 0.2, 2, np.ones((5, 7), dtype=np.float32))
    with pytest.raises(ValueError, match="weight of diversity"):
        greedy(np.zeros(3), tasks, -1, 2)
    with pytest.raises(ValueError, match=r"'farthest'.*coverage, nearest"):
        greedy(np.zeros(3), tasks, 0.2, 2, diversity="farthest")


def test_weights_by_name_or_written_out() -> None:
    assert weights_of("document", recorded=True) == (0.5, 0.3, 0.2)
    assert weights_of("auto", recorded=True) == PRESETS["find-errors"]
    assert weights_of("auto", recorded=False) == PRESETS["document"]
    assert weights_of("1/0/0.5", recorded=False) == Weights(1, 0, 0.5)


@pytest.mark.parametrize("preset", ["best", "1/0", "0/0/0", "1/-1/1", "1/nan/1", "1/inf/1", ""])
def test_weights_that_are_none(preset: str) -> None:
    with pytest.raises(ValueError, match=repr(preset)):
        weights_of(preset, recorded=True)
