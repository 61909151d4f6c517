"""Consensus beside cleanlab's own figures and a count by hand."""

import numpy as np
import pandas as pd
import pytest
from cleanlab.multiannotator import get_label_quality_multiannotator

from backend.evaluation.consensus import consensus

NOBODY = np.nan


@pytest.fixture(scope="module")
def crowd() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth (300,), answers (300, 4) of three annotators of falling skill and one who never came, probabilities."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 300)
    answers = np.full((300, 4), NOBODY)
    for who, skill in enumerate((0.97, 0.85, 0.5)):
        came = rng.random(300) < 0.6
        right = rng.random(300) < skill
        answers[came, who] = np.where(right, truth, (truth + rng.integers(1, 3, 300)) % 3)[came]
    sure = rng.dirichlet([1, 1, 1], 300).astype(np.float32)
    probabilities = 0.6 * np.eye(3, dtype=np.float32)[np.where(rng.random(300) < 0.9, truth, 0)] + 0.4 * sure
    return truth, answers, probabilities


def test_it_says_what_cleanlab_says(crowd: tuple[np.ndarray, ...]) -> None:
    _, answers, probabilities = crowd
    found = consensus(answers, probabilities)
    assert found is not None
    given = ~np.isnan(answers)
    rows = np.flatnonzero(given.any(axis=1))
    frame = pd.DataFrame(answers[rows][:, :3], columns=["a", "b", "c"])
    theirs = get_label_quality_multiannotator(
        frame, probabilities[rows], consensus_method="majority_vote", verbose=False
    )
    several = given[rows].sum(axis=1) > 1
    quality = theirs["label_quality"]["consensus_quality_score"].to_numpy()
    assert np.allclose(found.quality[rows][several], quality[several], atol=1e-4)
    assert np.isnan(found.quality[rows][~several]).all() and np.isnan(found.agreement[~given.any(axis=1)]).all()
    stats = theirs["annotator_stats"]["annotator_quality"]
    assert np.allclose(found.trust[:3], [stats[who] for who in "abc"], atol=1e-4) and np.isnan(found.trust[3])
    assert found.trust[0] > found.trust[1] > found.trust[2]


def test_agreement_is_counted(crowd: tuple[np.ndarray, ...]) -> None:
    _, answers, probabilities = crowd
    found = consensus(answers, probabilities)
    assert found is not None
    for who in range(4):
        shares = []
        for row in answers:
            others = [answer for other, answer in enumerate(row) if other != who and not np.isnan(answer)]
            if not np.isnan(row[who]) and others:
                shares.append(np.mean([answer == row[who] for answer in others]))
        assert found.shared[who] == len(shares)
        assert found.agrees[who] == pytest.approx(np.mean(shares)) if shares else np.isnan(found.agrees[who])


def test_a_low_quality_tells_wrong_consensus(crowd: tuple[np.ndarray, ...]) -> None:
    truth, answers, probabilities = crowd
    found = consensus(answers, probabilities)
    assert found is not None
    split = np.flatnonzero(found.agreement < 1)
    worst, best = np.array_split(split[np.argsort(found.quality[split])], 2)

    def right(rows: np.ndarray) -> float:
        """The share of the true answer among those given."""
        return float(np.nanmean(np.where(np.isnan(answers[rows]), np.nan, answers[rows] == truth[rows, None])))

    assert right(best) > right(worst)


@pytest.mark.parametrize("answers", [[[0.0], [1.0]], [[0.0, NOBODY], [NOBODY, 1.0]], [[NOBODY, NOBODY]] * 2])
def test_nothing_is_told_where_no_task_was_answered_by_two(answers: list[list[float]]) -> None:
    assert consensus(np.array(answers), np.full((2, 2), 0.5, dtype=np.float32)) is None


@pytest.mark.parametrize("answers", [[[0, 1], [1, 0]], [[0, 0], [0, 0]], [[2, 2], [NOBODY, 0]]])
def test_few_classes_certain_models_and_constant_dissent_raise_nothing(answers: list[list[float]]) -> None:
    found = consensus(np.array(answers, dtype=float), np.array([[1, 0, 0], [0, 1, 0]], dtype=np.float32))
    assert found is not None and found.shared.tolist()[0] == (2 if not np.isnan(answers[1][0]) else 1)
    with pytest.raises(ValueError, match="2 rows of answers and 1 of probabilities"):
        consensus(np.array(answers, dtype=float), np.ones((1, 3), dtype=np.float32))
