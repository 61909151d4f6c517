"""One score from three, and the batch it selects: a U + b D + c V."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.ranking.disagreement import disagreement
from tasks.ranking.diversity import DIVERSITIES
from tasks.ranking.suspects import suspicion
from tasks.ranking.uncertainty import NoSpread, uncertainty
from tasks.schema import Head, MaskHead

Floats = NDArray[np.float32]
Rows = NDArray[np.intp]

FIRST_CHUNK = 256


class Weights(NamedTuple):
    """a, b, c: of uncertainty, disagreement and diversity."""

    uncertainty: float
    disagreement: float
    diversity: float


PRESETS = {"document": Weights(0.5, 0.3, 0.2), "find-errors": Weights(0.1, 0.8, 0.1)}


def weights_of(preset: str, recorded: bool) -> Weights:
    """The weights of a preset's name, or those written as a/b/c; "auto" goes by whether labels are on record.

    Raises ValueError where it is none of these, where a weight is negative, or all are 0.
    """
    if preset == "auto":
        return PRESETS["find-errors" if recorded else "document"]
    if preset in PRESETS:
        return PRESETS[preset]
    try:
        weights = Weights(*map(float, preset.split("/")))
    except (TypeError, ValueError) as error:
        names = ", ".join(["auto", *PRESETS])
        raise ValueError(f"{preset!r} is none of {names}, nor three weights such as 0.1/0.8/0.1") from error
    if not all(0 <= weight < float("inf") for weight in weights) or not sum(weights):
        raise ValueError(f"{preset!r}: weights are 0 or more, and not all of them 0")
    return weights


class Reason(NamedTuple):
    """What a task owes its place to: the largest term of its score, with its head, and that term's own strength.

    strength: in [0, 1], before any weight. head: None where the part is diversity.
    """

    part: Literal["uncertainty", "disagreement", "diversity"]
    head: str | None
    strength: float


@dataclass(frozen=True)
class TaskScores:
    """What the model makes of N tasks: (N,) weighted over heads, and (N, H) per head, all float32 in [0, 1].

    head_doubt: the probability that the label on record does not hold, by the opinions that the disagreement is from;
    0 without a label.
    """

    heads: tuple[str, ...]
    head_weights: Floats
    uncertainty: Floats
    disagreement: Floats
    head_uncertainty: Floats
    head_disagreement: Floats
    head_doubt: Floats

    @classmethod
    def weighed(
        cls, heads: Sequence[Head | MaskHead], unsure: Floats, contradicted: Floats, doubt: Floats
    ) -> "TaskScores":
        """From the scores per head (N, H), summed by the heads' weights."""
        weights = np.array([head.weight for head in heads], dtype=np.float32)
        return cls(
            heads=tuple(head.name for head in heads),
            head_weights=weights,
            uncertainty=np.clip(unsure @ weights, 0, 1),
            disagreement=np.clip(contradicted @ weights, 0, 1),
            head_uncertainty=unsure,
            head_disagreement=contradicted,
            head_doubt=doubt,
        )

    def doubt(self, head: str) -> Floats:
        """How much the label on record of that head is doubted (N,)."""
        return self.head_doubt[:, self.heads.index(head)]

    def base(self, weights: Weights) -> Floats:
        """a U + b D (N,): the part of the hybrid score that does not depend on the other tasks of the batch."""
        a, b = np.float32(weights.uncertainty), np.float32(weights.disagreement)
        return a * self.uncertainty + b * self.disagreement

    def reason(self, row: int, weights: Weights, diversity: float) -> Reason:
        """Name the largest of the terms a w U, b w D (over heads) and c V of a task, given its V at selection."""
        terms = [(weights.diversity * diversity, Reason("diversity", None, float(diversity)))]
        for column, (head, weight) in enumerate(zip(self.heads, self.head_weights.tolist(), strict=True)):
            unsure = float(self.head_uncertainty[row, column])
            contradicted = float(self.head_disagreement[row, column])
            terms.append((weights.disagreement * weight * contradicted, Reason("disagreement", head, contradicted)))
            terms.append((weights.uncertainty * weight * unsure, Reason("uncertainty", head, unsure)))
        return max(terms, key=lambda term: term[0])[1]


def task_scores(
    heads: Sequence[Head],
    members: Mapping[str, Floats],
    targets: Mapping[str, Floats],
    measure: str = "entropy",
    opinions: Mapping[str, Floats] | None = None,
) -> TaskScores:
    """Score N tasks by uncertainty and disagreement, summed over heads by head weight.

    members: head name -> (M, N, C) calibrated probabilities; a head that is not in it has not been learnt and adds 0.
    targets: head name -> (N, C) current labels, NaN rows without one; a head that is not in it has none. A head without
    a current label adds 0 to the task's disagreement, whatever its weight: two tasks that differ in which labels they
    carry compare by what the model knows against them, so a task with one wrong label of small weight does not overtake
    one whose main label is wrong. opinions: head name -> (N, C) probabilities that labels are judged by, where they are
    not the members' mean. `measure` is a name in uncertainty.MEASURES.

    Raises ValueError where no head has members, or where heads differ in their number of tasks; NoSpread where the
    measure needs members that spread.
    """
    learnt = [head for head in heads if head.name in members]
    tasks = {head.name: np.shape(members[head.name])[1] for head in learnt}
    if not learnt:
        raise ValueError("No head has probabilities: there is nothing to score; order by diversity alone.")
    if len(set(tasks.values())) > 1:
        raise ValueError(f"Heads differ in their number of tasks: {tasks}.")
    shape = (tasks[learnt[0].name], len(heads))
    unsure, contradicted, doubt = (np.zeros(shape, dtype=np.float32) for _ in range(3))
    for column, head in enumerate(heads):
        if head.name not in members:
            continue
        try:
            unsure[:, column] = uncertainty(measure, members[head.name], head.multiple)
        except NoSpread as error:
            raise NoSpread(f"Head {head.name!r}: {error}") from error
        if head.name in targets:
            said = None if opinions is None else opinions.get(head.name)
            if said is None:
                said = np.asarray(members[head.name], dtype=np.float32).mean(axis=0)
            contradicted[:, column] = disagreement(said, targets[head.name], head)
            doubt[:, column] = np.nan_to_num(suspicion(said, targets[head.name], head))
    return TaskScores.weighed(heads, unsure, contradicted, doubt)


class Selection(NamedTuple):
    """A batch in the order of selection: rows, and their hybrid score and diversity when they were selected."""

    order: Rows
    score: Floats
    diversity: Floats


def greedy(
    base: Floats,
    embeddings: Floats,
    gamma: float,
    batch: int,
    reference: Floats | None = None,
    diversity: str = "nearest",
) -> Selection:
    """Select a batch one task at a time, each the highest `base + gamma V` given those before it.

    base: (N,) a U + b D; zeros where nothing is labelled yet, so that diversity alone orders. embeddings: (N, D).
    reference: (R, D), embeddings of the tasks reviewed already. diversity: a name in diversity.DIVERSITIES. Ties go to
    the lowest row. At most N tasks come back.

    Lazy (Minoux 1978) and exact: V only falls while the batch grows, so a score computed earlier bounds today's, and a
    row is brought up to date only when its bound is the highest of all.

    Raises ValueError where base is not finite, gamma is negative, or the arrays do not fit together.
    """
    base = np.asarray(base, dtype=np.float32)
    _check(base, embeddings, gamma, reference)
    if diversity not in DIVERSITIES:
        raise ValueError(f"There is no diversity {diversity!r}; there are {', '.join(sorted(DIVERSITIES))}.")
    novelty = DIVERSITIES[diversity](embeddings, reference)
    weight = np.float32(gamma)
    bound = base + weight * novelty.values
    batch = min(batch, len(base))
    order = np.empty(batch, dtype=np.intp)
    score, value = np.empty(batch, dtype=np.float32), np.empty(batch, dtype=np.float32)
    for pick in range(batch):
        chunk = FIRST_CHUNK
        while novelty.stale(best := int(bound.argmax())):
            rows = _highest(bound, chunk)
            novelty.refresh(rows)
            bound[rows] = base[rows] + weight * novelty.values[rows]
            chunk *= 2
        order[pick], score[pick], value[pick] = best, bound[best], novelty.values[best]
        bound[best] = -np.inf
        novelty.add(best)
    return Selection(order, score, value)


def _highest(bound: Floats, count: int) -> Rows:
    """The rows of the highest bounds, at most `count` of them; of equal ones the first, and none already selected."""
    if count >= len(bound):
        return np.flatnonzero(bound > -np.inf)
    cut = np.partition(bound, len(bound) - count)[len(bound) - count]
    above = np.flatnonzero(bound > cut)
    level = np.flatnonzero(bound == cut)[: count - len(above)] if cut > -np.inf else above[:0]
    return np.concatenate([above, level])


def _check(base: Floats, embeddings: Floats, gamma: float, reference: Floats | None) -> None:
    if base.ndim != 1 or np.ndim(embeddings) != 2 or len(base) != len(embeddings):
        raise ValueError(f"Scores {base.shape} and embeddings {np.shape(embeddings)} are not of the same tasks.")
    if reference is not None and np.shape(reference)[1:] != np.shape(embeddings)[1:]:
        raise ValueError(f"References are {np.shape(reference)} and embeddings {np.shape(embeddings)}.")
    if not gamma >= 0:
        raise ValueError(f"The weight of diversity is {gamma}; it is 0 or more.")
    if not np.isfinite(base).all():
        raise ValueError(f"The score of row {int(np.flatnonzero(~np.isfinite(base))[0])} is not a finite number.")
