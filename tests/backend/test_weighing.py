"""What each label counts in a fit, and that it is said."""

from dataclasses import replace

import numpy as np
import pytest

from backend.learning.config import LearningConfig
from backend.learning.doubted import doubted
from backend.snapshot import Snapshot
from backend.weighing import account, in_doubt, weigh
from backend.weights_in_words import sentences
from tasks.ranking.suspects import suspects
from tasks.schema import parse_label_config

LABELS = """<View><Image name="image" value="$image"/>
<Choices name="bom" toName="image" model_weight="0.9"><Choice value="benign"/><Choice value="malignant"/></Choices>
<Choices name="shape" toName="image"><Choice value="taller"/><Choice value="wider"/></Choices></View>"""
HEADS = parse_label_config(LABELS).heads
CONFIG = LearningConfig(folds=3, head_seeds=1)
COUNT = 400
RNG = np.random.default_rng(0)
POINTS = RNG.normal(size=(COUNT, 5)).astype(np.float32)
WRONG = RNG.random(COUNT) < 0.1


@pytest.fixture
def taken() -> Snapshot:
    """400 tasks of one image each, every tenth label of `bom` wrong; people reviewed the first 50, ten unsurely."""
    truth = (POINTS[:, 0] > 0).astype(int)
    bom = np.eye(2, dtype=np.float32)[np.where(WRONG, 1 - truth, truth)]
    targets = {"bom": bom, "shape": np.eye(2, dtype=np.float32)[truth]}
    given = np.arange(COUNT) < 50
    weights = {head: np.ones(COUNT, dtype=np.float32) for head in targets}
    weights["bom"][:10] = 0.6
    return Snapshot(
        ids=np.arange(1, COUNT + 1),
        pixels=np.array([f"digest{row}" for row in range(COUNT)]),
        folds=(np.arange(COUNT) % 4 - 1).astype(np.int8),
        groups=np.array([f"patient{row}" for row in range(COUNT)]),
        targets=targets,
        recorded=targets,
        adjudicated={"bom": given, "shape": np.zeros(COUNT, dtype=bool)},
        weights=weights,
        drawn=np.zeros(COUNT, dtype=bool),
        annotations=np.array([], dtype=np.int64),
        updated=np.array([], dtype=np.str_),
        label_config=LABELS,
    )


def test_all_keep_the_weight_that_people_gave_them(taken: Snapshot) -> None:
    found = weigh(taken, HEADS, [POINTS], CONFIG, "keep", 0.2)
    assert found.suspects is None and len(found.weights) == 1
    assert all(np.array_equal(found.weights[0][name], taken.weights[name]) for name in taken.weights)
    assert found.learnt_from(taken, HEADS[0]) == taken.learnt_from(HEADS[0])


@pytest.mark.parametrize(("rule", "share"), [("down-weight", 0.5), ("drop", 0.0)])
def test_suspects_nobody_has_reviewed_weigh_less(taken: Snapshot, rule: str, share: float) -> None:
    found = weigh(taken, HEADS, [POINTS], CONFIG, rule, 0.2)
    of_each = doubted([POINTS], taken.targets, taken.folds, HEADS, CONFIG, 0.2, taken.groups.tolist(), taken.weights)
    assert found.suspects is not None and len(found.weights) == CONFIG.folds
    for weights, doubt in zip(found.weights, of_each, strict=True):
        for name in taken.targets:
            expected = taken.weights[name] * np.where(doubt[name] & ~taken.adjudicated[name], share, 1)
            assert np.allclose(weights[name], expected)
    assert np.array_equal(found.weights[0]["bom"][:50], taken.weights["bom"][:50])  # whoever reviewed them holds
    rows = found.suspects["bom"]
    assert rows.sum() > 10 and WRONG[rows].mean() > 0.7 and not rows[:50].any() and not rows[taken.folds == -1].any()
    for row in np.flatnonzero(rows):
        judges = [doubt["bom"][row] for fold, doubt in enumerate(of_each) if fold != taken.folds[row]]
        assert sum(judges) * 2 > len(judges)


def test_what_is_learnt_from_tells_weights_apart(taken: Snapshot) -> None:
    bom, shape = HEADS
    seen = {weigh(taken, HEADS, [POINTS], CONFIG, rule, 0.2).learnt_from(taken, bom) for rule in ("keep", "drop")}
    again = weigh(taken, HEADS, [POINTS], CONFIG, "drop", 0.2)
    assert len(seen) == 2 and again.learnt_from(taken, bom) in seen
    surer = replace(taken, weights=taken.weights | {"bom": np.ones(COUNT, dtype=np.float32)})
    assert surer.learnt_from(bom) != taken.learnt_from(bom) and surer.learnt_from(shape) == taken.learnt_from(shape)
    assert surer.fingerprint() != taken.fingerprint()


def test_suspects_are_counted_where_they_keep_their_weight_too(taken: Snapshot) -> None:
    p = np.where(taken.targets["bom"] > 0, 0.1, 0.9).astype(np.float32)  # all are doubted
    found = in_doubt(taken, HEADS, {"bom": p, "shape": 1 - p}, 0.2)
    open_ = ~taken.adjudicated["bom"] & (taken.folds != -1)
    assert np.array_equal(found["bom"], open_)
    everyone = taken.folds != -1
    assert np.array_equal(found["shape"], suspects(1 - p, taken.targets["shape"], HEADS[1], 0.2) & everyone)
    told = account(taken, "keep", found)
    unsure = int((taken.folds[:10] != -1).sum())
    assert told["bom"] == {"suspects": int(open_.sum()), "suspects_weigh": 1.0, "unsure": unsure}


def test_it_is_said_in_words() -> None:
    figures = {"suspects": 48, "suspects_weigh": 0.5, "unsure": 0}
    assert sentences({"bom": figures}) == ["bom: 48 suspects nobody has reviewed weigh half"]
    (said,) = sentences({"bom": figures | {"suspects_weigh": 0.0, "unsure": 3}, "old": {"n": 3}})
    assert said == (
        "bom: 48 suspects nobody has reviewed are not learnt from;"
        " 3 answers of people who were unsure, or not at one, weigh less"
    )
    assert "weigh as all others" in sentences({"bom": figures | {"suspects_weigh": 1.0}})[0]
    assert sentences({"bom": {"suspects": 0, "suspects_weigh": 0.5, "unsure": 0}}) == []
