"""When enough is reviewed: each criterion at its edges, and where nothing can be told."""

import numpy as np
import pytest
from scipy.stats import norm

from backend.evaluation import stopping
from backend.evaluation.compare import Difference, compare
from backend.evaluation.control import Arm
from backend.evaluation.stopping import BACK, CONTROL, GAIN, RARE, RECENT, Criterion
from tasks.schema import Head

HEAD = Head("bom", "image", "single", ("benign", "malignant"), 1.0, False, None, "malignant", required=True)


def wilson_high(hits: int, of: int) -> float:
    z, p = norm.ppf(0.975), hits / of
    return (p + z * z / (2 * of) + z * np.sqrt(p * (1 - p) / of + z * z / (4 * of * of))) / (1 + z * z / of)


def test_a_budget_of_annotations() -> None:
    assert [stopping.annotations(made, 300).met for made in (0, 299, 300, 301)] == [False, False, True, True]
    assert stopping.annotations(299, 300).said == "299 of 300 annotations of the budget are made."
    none = stopping.annotations(5, 0)
    assert none.met is None and none.said == "No budget of annotations is set; 5 are made."


def test_a_budget_of_hours_counts_what_was_not_measured_as_the_median() -> None:
    times = [10.0, None, 20.0, 6000.0, None]
    said = stopping.hours(times, 1.5)
    assert said.met is True  # 6030 seconds and twice 20: 1.69 hours
    assert "1.7 of 1.5 hours" in said.said and "2 of 5 answers without a lead time" in said.said
    assert stopping.hours(times, 1.7).met is False
    assert stopping.hours(times, 0).met is None and "No budget of hours" in stopping.hours(times, 0).said


def test_hours_that_nobody_measured_are_not_spent() -> None:
    said = stopping.hours([None, None], 1)
    assert said.met is False and said.said.startswith("None of the 2 answers has a lead time")
    assert stopping.hours([], 1).said == "0.0 of 1 hours of the budget are spent."
    assert stopping.hours([], 1).met is False and stopping.hours([None], 0).met is None


def test_the_uncertainty_of_the_rest() -> None:
    values = np.array([0.1, 0.2, 0.3])
    assert stopping.uncertainty(values, 0.21).met is True and stopping.uncertainty(values, 0.2).met is False
    assert "of the 3 tasks not reviewed is 0.200" in stopping.uncertainty(values, 0.2).said
    assert stopping.uncertainty(values, 0).met is None and stopping.uncertainty(values[:0], 0.5).met is None


@pytest.mark.parametrize(
    ("low", "high", "met"),
    [
        (-0.01, GAIN - 0.001, True),
        (-0.01, GAIN, False),
        (0.001, GAIN / 2, True),
        (-0.1, 0.1, False),
        (-0.2, -0.1, True),
    ],
)
def test_a_plateau_rules_a_gain_out(low: float, high: float, met: bool) -> None:
    said = stopping.plateau("AUC", 4, 7, Difference(0.9, 0.905, low, high, 0.4), 5)
    assert said.met is met and "From v4 to v7 AUC on the hold-out went from 0.900 to 0.905" in said.said
    assert ("is ruled out" in said.said) is met


def test_a_plateau_that_cannot_be_told_is_none() -> None:
    few = stopping.plateau("AUC", 0, 0, None, BACK)
    assert (
        few.met is False
        and few.said == f"Too few versions to tell: 3 can be compared on the hold-out, it takes {BACK + 1}."
    )
    assert stopping.plateau("AUC", 1, 4, Difference(None, None, None, None, None), 4).met is False
    assert "gives no interval" in stopping.plateau("AUC", 1, 4, Difference(0.9, 0.9, None, None, None), 4).said


@pytest.mark.parametrize(("rows", "gain", "met"), [(4000, 0.0, True), (60, 0.0, False), (4000, 0.05, False)])
def test_a_small_hold_out_or_a_model_that_gains_is_no_plateau(rows: int, gain: float, met: bool) -> None:
    """Two models of one error each, on hold-outs of two sizes: the interval decides, not the difference alone."""
    rng = np.random.default_rng(5)
    y = rng.random(rows) < 0.4
    signal = np.where(y, 1.0, -1.0) + rng.normal(size=rows)
    p = [norm.cdf(signal + spread * rng.normal(size=rows)) for spread in (0.3 + 10 * gain, 0.3)]
    before, after = (np.stack([1 - q, q], axis=1).astype(np.float32) for q in p)
    targets = np.stack([~y, y], axis=1).astype(np.float32)
    gained = compare(HEAD, before, after, targets, [str(row) for row in range(rows)], draws=500)["auc"]
    assert stopping.plateau("AUC", 1, 4, gained, 4).met is met


def test_finds_dry_up_when_nearly_none_come() -> None:
    allowed = max(hits for hits in range(RECENT) if wilson_high(hits, RECENT) < RARE)
    for hits in range(5):
        recent = [True] * 30 + [place < hits for place in range(RECENT)]  # what was found before counts no more
        assert stopping.finds(recent, Arm(0, 0), 500).met is (hits <= allowed)


def test_finds_dry_up_when_chance_finds_as_many() -> None:
    ranked = [place < 6 for place in range(RECENT)]
    assert stopping.finds(ranked, Arm(CONTROL, 3), 500).met is True
    assert stopping.finds(ranked, Arm(CONTROL, 2), 500).met is False  # 6 % against 4 %
    assert stopping.finds(ranked, Arm(CONTROL - 1, 3), 500).met is False  # too few to compare with
    assert "no more than chance: at random it was 3 of 50" in stopping.finds(ranked, Arm(CONTROL, 3), 500).said


def test_finds_that_cannot_be_told() -> None:
    few = stopping.finds([False] * (RECENT - 1), Arm(CONTROL, 0), 500)
    assert few.met is False and f"{RECENT - 1} of {RECENT}" in few.said
    assert stopping.finds([], Arm(0, 0), 0).met is None
    assert "there is no control arm to compare with" in stopping.finds([False] * RECENT, Arm(0, 0), 500).said


@pytest.mark.parametrize(
    ("met", "names"),
    [
        ((None, None, None, False, False), []),
        ((False, False, False, True, False), []),
        ((False, False, False, True, True), ["plateau", "finds"]),
        ((None, None, None, True, None), ["plateau"]),  # no labels on record
        ((None, None, None, None, True), ["finds"]),  # no model of ours
        ((None, None, None, None, None), []),
        ((True, False, False, False, False), ["annotations"]),
        ((None, True, True, True, False), ["hours", "uncertainty"]),
    ],
)
def test_what_the_criteria_come_to(met: tuple[bool | None, ...], names: list[str]) -> None:
    rows = [
        Criterion(name, value, name)
        for name, value in zip(("annotations", "hours", "uncertainty", "plateau", "finds"), met, strict=True)
    ]
    assert [row.name for row in stopping.reasons(rows)] == names
