"""What a version says of every task: probabilities, uncertainty and disagreement, kept as one file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backend.registry import Array, load_arrays, save_arrays
from tasks.ranking.hybrid import TaskScores, task_scores
from tasks.schema import Head

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Scored:
    """N tasks: ids (N,), probabilities per learnt head (N, C) averaged over members, and the scores (None: no head)."""

    ids: NDArray[np.int64]
    probabilities: Mapping[str, Floats]
    scores: TaskScores | None

    @cached_property
    def row_of(self) -> dict[int, int]:
        """Where a task lies in the arrays."""
        return {int(task): row for row, task in enumerate(self.ids)}

    def of(self, task_id: int) -> dict[str, Floats] | None:
        """Probabilities per head (C,) of one task; None where it was not scored."""
        row = self.row_of.get(task_id)
        return None if row is None else {head: p[row] for head, p in self.probabilities.items()}

    def save(self, path: Path) -> None:
        """Write it as one file."""
        arrays: dict[str, Array] = {"ids": self.ids}
        arrays |= {f"p:{head}": p for head, p in self.probabilities.items()}
        if self.scores is not None:
            arrays |= {f"s:{name}": np.asarray(value) for name, value in vars(self.scores).items()}
        save_arrays(path, arrays)

    @classmethod
    def load(cls, path: Path) -> "Scored":
        """Read what save wrote."""
        arrays = load_arrays(path)
        fields = {name[2:]: array for name, array in arrays.items() if name.startswith("s:")}
        scores = None
        if fields:
            heads = tuple(str(name) for name in fields.pop("heads"))
            scores = TaskScores(heads=heads, **fields)
        return cls(arrays["ids"], {name[2:]: p for name, p in arrays.items() if name.startswith("p:")}, scores)


def score(
    ids: NDArray[np.int64],
    heads: Sequence[Head],
    blocks: Sequence[tuple[NDArray[np.intp], Mapping[str, Floats]]],
    recorded: Mapping[str, Floats],
    measure: str,
    threshold: float,
) -> Scored:
    """Score N tasks from blocks of rows, each with its own members, e.g. out-of-fold rows and the others.

    blocks: (rows (n,), head -> (M, n, C)); together they hold every row once. recorded: labels on record, (N, C).
    """
    probabilities: dict[str, Floats] = {
        head.name: np.zeros((len(ids), len(head.classes)), dtype=np.float32)
        for head in heads
        if any(head.name in members for _, members in blocks)
    }
    parts = []
    for rows, members in blocks:
        for head, values in members.items():
            probabilities[head][rows] = values.mean(axis=0)
        targets = {head: recorded[head][rows] for head in members}
        parts.append((rows, task_scores(heads, members, targets, measure, threshold)))
    if not parts:
        return Scored(ids, probabilities, None)

    def whole(name: str) -> Floats:
        first = getattr(parts[0][1], name)
        joined = np.zeros((len(ids), *first.shape[1:]), dtype=np.float32)
        for rows, part in parts:
            joined[rows] = getattr(part, name)
        return joined

    scores = TaskScores(
        heads=parts[0][1].heads,
        head_weights=parts[0][1].head_weights,
        uncertainty=whole("uncertainty"),
        disagreement=whole("disagreement"),
        head_uncertainty=whole("head_uncertainty"),
        head_disagreement=whole("head_disagreement"),
    )
    return Scored(ids, probabilities, scores)
