"""The layout of the queue: honest draws, no task twice, and pools that run out."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, chisquare

from tasks.ranking.interleave import Shares, Slot, lay_out, queue_key, shares, slots


def test_the_control_share_halves_when_200_are_reviewed() -> None:
    assert [shares(count) for count in (0, 199, 200, 5000)] == [Shares(0.2, 0.05)] * 2 + [Shares(0.1, 0.05)] * 2


def test_slots_are_drawn_with_their_shares_and_half_of_the_control_arm_is_blind() -> None:
    kinds = slots(20_000, Shares(0.2, 0.05), np.random.default_rng(0))
    counts = Counter(kinds.tolist())
    expected = {"ranked": 0.75, "control": 0.1, "blind": 0.1, "holdout": 0.05}
    assert counts.keys() == expected.keys()
    assert chisquare([counts[k] for k in expected], [20_000 * p for p in expected.values()]).pvalue > 0.01
    neighbours = Counter(pairwise(kinds.tolist()))
    assert neighbours["control", "control"] == pytest.approx(200, abs=60)  # no slot knows the one before


@given(
    ranked=st.integers(0, 40),
    unranked=st.integers(0, 20),
    holdout=st.integers(0, 5),
    n=st.integers(0, 80),
    reviewed=st.sampled_from([0, 199, 200]),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_queue_is_whole(ranked: int, unranked: int, holdout: int, n: int, reviewed: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.permutation(1000).tolist()
    best, pool = ids[:ranked], ids[: ranked + unranked]
    frozen = ids[ranked + unranked :][:holdout]
    queue = lay_out(best, pool, frozen, n, reviewed, rng)
    tasks = [slot.task for slot in queue]
    assert len(set(tasks)) == len(tasks) <= n
    assert all((slot.kind == "holdout") == (slot.task in frozen) for slot in queue)
    drawn = {slot.task for slot in queue if slot.kind != "ranked"}
    in_order = [slot.task for slot in queue if slot.kind == "ranked"]
    assert in_order == [task for task in best if task not in drawn][: len(in_order)]
    # A slot is left empty only when there is nothing ranked to put there, and n ranked tasks are always enough.
    assert len(queue) == n or set(best) <= set(tasks)
    assert {slot.kind for slot in queue if slot.blind} <= {"blind", "holdout"}


def test_the_control_arm_is_a_uniform_draw_from_all_open_tasks_the_first_ranked_included() -> None:
    rng = np.random.default_rng(0)
    ranked = list(range(60))
    drawn: Counter[int] = Counter()
    arms: Counter[str] = Counter()
    for _ in range(4000):
        for slot in lay_out(ranked[:30], ranked, [], 20, 0, rng):
            if slot.kind != "ranked":
                drawn[slot.task] += 1
                arms[slot.kind] += 1
    assert chisquare([drawn[task] for task in ranked]).pvalue > 0.01
    assert arms["control"] + arms["blind"] == pytest.approx(4000 * 20 * 0.2, rel=0.02)
    assert binom.cdf(arms["blind"], arms["control"] + arms["blind"], 0.5) == pytest.approx(0.5, abs=0.495)


def test_holdout_tasks_come_uniformly_and_at_any_place() -> None:
    rng = np.random.default_rng(1)
    tasks: Counter[int] = Counter()
    places: Counter[int] = Counter()
    for _ in range(4000):
        for place, slot in enumerate(lay_out(range(100), range(100), range(100, 110), 20, 500, rng)):
            if slot.kind == "holdout":
                tasks[slot.task] += 1
                places[place] += 1
    assert chisquare([tasks[task] for task in range(100, 110)]).pvalue > 0.01
    assert chisquare([places[place] for place in range(20)]).pvalue > 0.01


def test_without_pools_all_slots_go_to_the_ranked_order() -> None:
    queue = lay_out([5, 3, 9, 1], [], [], 3, 0, np.random.default_rng(0))
    assert queue == [Slot(5, "ranked"), Slot(3, "ranked"), Slot(9, "ranked")]


def test_the_same_generator_gives_the_same_queue() -> None:
    first, second = (
        lay_out(range(500), range(500), range(500, 550), 100, 0, np.random.default_rng(7)) for _ in range(2)
    )
    assert first == second


@pytest.mark.parametrize(("ranked", "pool"), [([1, 2], [3]), ([1], [2, 3])])
def test_a_holdout_task_elsewhere_is_refused(ranked: list[int], pool: list[int]) -> None:
    with pytest.raises(ValueError, match="Task 2 is in the hold-out"):
        lay_out(ranked, pool, [2], 5, 0, np.random.default_rng(0))


def test_queue_keys_are_unique_increasing_and_above_0() -> None:
    keys = [queue_key(rank) for rank in range(130_000)]
    assert keys[0] == 1e-6
    assert all(first < second for first, second in pairwise(keys))
    with pytest.raises(ValueError, match="-1"):
        queue_key(-1)
