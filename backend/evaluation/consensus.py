"""What several annotators of one task agree on, and how far each of them is to be trusted: CROWDLAB, by cleanlab.

Goh, Tkachenko, Mueller, CROWDLAB: Supervised learning to infer consensus labels and quality scores for data with
multiple annotators, 2022. It weighs the annotators by how often they agree, and a model's opinion among them. It
informs people: what is learnt stays what people said (`tasks.labels.settle`).
"""

from dataclasses import dataclass

import numpy as np
from cleanlab.multiannotator import get_label_quality_multiannotator
from numpy.typing import NDArray

FLOOR = 1e-6  # a probability of 0 would leave a class out of account


@dataclass(frozen=True)
class Consensus:
    """Of N tasks and A annotators.

    quality: (N,) how likely the commonest answer is right, in [0, 1]. agreement: (N,) the share of the annotators who
    gave it. Both NaN where fewer than two answered. shared: (A,) tasks that each answered beside another. agrees: (A,)
    how often, of these, the others said the same. trust: (A,) how likely each one's answers are right; NaN for those
    who share no task.
    """

    quality: NDArray[np.float64]
    agreement: NDArray[np.float64]
    shared: NDArray[np.int64]
    agrees: NDArray[np.float64]
    trust: NDArray[np.float64]


def consensus(answers: NDArray[np.float64], probabilities: NDArray[np.float32]) -> Consensus | None:
    """The consensus on a head of one choice; None where no task was answered by two.

    answers: (N, A) the column of the class that each annotator gave, NaN where they did not answer. probabilities:
    (N, C) a model's that learnt from none of these answers. Raises ValueError where the shapes differ in N.
    """
    if len(answers) != len(probabilities):
        raise ValueError(
            f"{len(answers)} rows of answers and {len(probabilities)} of probabilities: one of each per task"
        )
    given = ~np.isnan(answers)
    several = given.sum(axis=1) > 1
    if not several.any():
        return None
    rows, people = np.flatnonzero(given.any(axis=1)), np.flatnonzero(given.any(axis=0))
    p = np.clip(probabilities[rows].astype(np.float64), FLOOR, None)
    found = get_label_quality_multiannotator(
        answers[np.ix_(rows, people)],
        p / p.sum(axis=1, keepdims=True),
        consensus_method="majority_vote",
        return_detailed_quality=False,
        verbose=False,
    )
    quality, agreement = np.full(len(answers), np.nan), np.full(len(answers), np.nan)
    quality[rows] = found["label_quality"]["consensus_quality_score"]
    agreement[rows] = found["label_quality"]["annotator_agreement"]
    quality[~several] = agreement[~several] = np.nan
    shared, agrees = _with_others(answers)
    trust = np.full(answers.shape[1], np.nan)
    stats = found["annotator_stats"]  # by the number of the column, in an order of its own
    trust[people[stats.index.to_numpy(dtype=int)]] = stats["annotator_quality"]
    trust[shared == 0] = np.nan
    return Consensus(quality, agreement, shared, agrees, trust)


def _with_others(answers: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Per annotator: tasks shared with another, and the mean over them of the share of the others who said the same."""
    given = ~np.isnan(answers)
    others = given.sum(axis=1, keepdims=True) - given
    same = np.zeros(answers.shape)
    for choice in np.unique(answers[given]):
        said = answers == choice
        same += said * (said.sum(axis=1, keepdims=True) - said)
    beside = given & (others > 0)
    share = np.divide(same, others, out=np.zeros(answers.shape), where=beside)
    shared = beside.sum(axis=0)
    agrees = np.divide(share.sum(axis=0), shared, out=np.full(len(shared), np.nan), where=shared > 0)
    return shared, agrees
