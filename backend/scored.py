"""What a version says of every task: probabilities, uncertainty and disagreement, kept as files.

predictions.npz   the tasks its cycle knew; never changed
later.npz         the tasks that came, or got another image, since then; replaced as a whole
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from backend.registry import Array, load_arrays, save_arrays
from backend.survivors import Answers, answers, columns
from tasks.codec import to_labels, to_targets
from tasks.mask_heads import MaskKind
from tasks.ranking.disagreement import disagreement
from tasks.ranking.hybrid import TaskScores, Weights, task_scores
from tasks.schema import Head, Labels, MaskHead
from tasks.why import Reason

Floats = NDArray[np.float32]

PER_TASK = ("uncertainty", "disagreement", "head_uncertainty", "head_disagreement", "head_doubt")
"""The fields of TaskScores that have a row a task."""


class Drawn(NamedTuple):
    """What the U-Nets make of N tasks, of one mask head: how unsure they are, and how far the mask on record is to be
    doubted, float32 (N,) in [0, 1]; 0 without one."""

    uncertainty: Floats
    doubt: Floats


@dataclass(frozen=True)
class Scored:
    """N tasks: ids (N,), probabilities per learnt head (N, C) averaged over members, and the scores (None: no head).

    pixels: (N,) sha256 of the image that was looked at. answers: what the columns of each head stand for.
    """

    ids: NDArray[np.int64]
    probabilities: Mapping[str, Floats]
    scores: TaskScores | None
    pixels: NDArray[np.str_]
    answers: Mapping[str, Answers]

    @cached_property
    def row_of(self) -> dict[int, int]:
        """Where a task lies in the arrays."""
        return dict(zip(self.ids.tolist(), range(len(self.ids)), strict=True))

    @property
    def drawn(self) -> frozenset[str]:
        """The mask heads that were learnt: their scores are there, what is drawn lies in `regions`."""
        names = () if self.scores is None else self.scores.heads
        return frozenset(name for name in names if self.answers[name][0] in get_args(MaskKind))

    def of(self, task_id: int) -> dict[str, Floats] | None:
        """Probabilities per head (C,) of one task; None where it was not scored."""
        row = self.row_of.get(task_id)
        return None if row is None else {head: p[row] for head, p in self.probabilities.items()}

    def reason(self, task: int, weights: Weights, diversity: float, heads: Sequence[Head], recorded: Labels) -> Reason:
        """What a scored task owes its place to, given its diversity at selection and its labels on record.

        Raises KeyError for a task that was not scored.
        """
        assert self.scores is not None  # the caller asks only where something was learnt
        row = self.row_of[task]
        found = self.scores.reason(row, weights, diversity)
        if found.part != "disagreement" or found.head in self.drawn:
            return found.part
        head = next(head for head in heads if head.name == found.head)
        image, label = self.probabilities[head.name][row], tuple(recorded.get(head.name, ()))
        if set(to_labels(head, image)) != set(label):
            return "disagreement"
        # The image agrees: either the other labels on record raise the doubt, or it is the image's own.
        own = disagreement(image[None], to_targets([head], [{head.name: label}])[head.name], head)[0]
        return "record" if found.strength > 2 * own else "uncertainty"

    def still(self, pixels: Mapping[int, str | None]) -> list[int]:
        """The tasks among `pixels` (task -> sha256 of its image now) whose image is the one that was scored.

        The others were given another image since, or are new tasks under a deleted one's number.
        """
        return [
            task for task, said in zip(self.ids.tolist(), self.pixels.tolist(), strict=True) if pixels.get(task) == said
        ]

    def under(self, heads: Sequence[Head | MaskHead]) -> "Scored":
        """The same, as far as these heads of the present label config were learnt: others are left out.

        Classes are brought into their present order, and the heads' present weights count.
        """
        order = columns(self.answers, heads)
        kept = {name: self.probabilities[name][:, order[name]] for name in order if name in self.probabilities}
        learnt = self.drawn.intersection(order).union(kept)
        scores = _weighed(self.scores, heads, learnt) if self.scores is not None and learnt else None
        return replace(self, probabilities=kept, scores=scores, answers=answers(heads))

    def followed_by(self, later: "Scored") -> "Scored":
        """With what the same version said of other tasks, or of these tasks' new images, later on."""
        rows = np.flatnonzero(~np.isin(self.ids, later.ids))
        return Scored(
            ids=np.concatenate([self.ids[rows], later.ids]),
            probabilities={
                head: np.concatenate([p[rows], later.probabilities[head]]) for head, p in self.probabilities.items()
            },
            scores=_followed_by(self.scores, rows, later.scores),
            pixels=np.concatenate([self.pixels[rows], later.pixels]),
            answers=self.answers,
        )

    def save(self, path: Path) -> None:
        """Write it as one file."""
        arrays: dict[str, Array] = {
            "ids": self.ids,
            "pixels": self.pixels,
            "answers": np.array(json.dumps(self.answers)),
        }
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
            fields.setdefault("head_doubt", fields["head_disagreement"])  # written before doubt was kept by itself
            scores = TaskScores(heads=heads, **fields)
        said = json.loads(str(arrays["answers"]))
        return cls(
            arrays["ids"],
            {name[2:]: p for name, p in arrays.items() if name.startswith("p:")},
            scores,
            arrays["pixels"],
            {name: (kind, tuple(classes)) for name, (kind, classes) in said.items()},
        )


def of_version(folder: Path) -> Scored:
    """All that a version says by now: of the tasks its cycle knew, and of those that came later."""
    scored, later = Scored.load(folder / "predictions.npz"), folder / "later.npz"
    return scored.followed_by(Scored.load(later)) if later.exists() else scored


def add(folder: Path, new: Scored) -> None:
    """Keep what a version says of more tasks, whole or not at all."""
    later = folder / "later.npz"
    (Scored.load(later).followed_by(new) if later.exists() else new).save(later)


def _weighed(scores: TaskScores, heads: Sequence[Head | MaskHead], kept: frozenset[str]) -> TaskScores:
    heads = [head for head in heads if isinstance(head, Head) or head.name in kept]
    shape = (len(scores.uncertainty), len(heads))
    unsure, contradicted, doubt = (np.zeros(shape, dtype=np.float32) for _ in range(3))
    for column, head in enumerate(heads):
        if head.name in kept:
            before = scores.heads.index(head.name)
            unsure[:, column] = scores.head_uncertainty[:, before]
            contradicted[:, column] = scores.head_disagreement[:, before]
            doubt[:, column] = scores.head_doubt[:, before]
    return TaskScores.weighed(heads, unsure, contradicted, doubt)


def _followed_by(scores: TaskScores | None, rows: NDArray[np.intp], later: TaskScores | None) -> TaskScores | None:
    if scores is None or later is None:
        return None
    joined = {name: np.concatenate([getattr(scores, name)[rows], getattr(later, name)]) for name in PER_TASK}
    return replace(scores, **joined)


def score(
    ids: NDArray[np.int64],
    pixels: NDArray[np.str_],
    heads: Sequence[Head | MaskHead],
    blocks: Sequence[tuple[NDArray[np.intp], Mapping[str, Floats]]],
    recorded: Mapping[str, Floats],
    measure: str,
    opinions: Mapping[str, Floats] | None = None,
    drawn: Mapping[str, Drawn] | None = None,
) -> Scored:
    """Score N tasks from blocks of rows, each with its own members, e.g. out-of-fold rows and the others.

    pixels: (N,) sha256 of each task's image. blocks: (rows (n,), head -> (M, n, C)); together they hold every row once.
    recorded: labels on record, (N, C). opinions: (N, C) probabilities that these are judged by, else the members' mean.
    drawn: what the U-Nets make of the tasks, by mask head; those that are not in it were not learnt. heads: as in
    Schema.learnt, which weighs them.
    """
    drawn = drawn or {}
    whole = [head for head in heads if isinstance(head, Head)]
    learnt = [head for head in heads if isinstance(head, Head) or head.name in drawn]
    probabilities: dict[str, Floats] = {
        head.name: np.zeros((len(ids), len(head.classes)), dtype=np.float32)
        for head in whole
        if any(head.name in members for _, members in blocks)
    }
    unsure, contradicted, doubt = (np.zeros((len(ids), len(learnt)), dtype=np.float32) for _ in range(3))
    for rows, members in blocks:
        for head, values in members.items():
            probabilities[head][rows] = values.mean(axis=0)
        if not members:
            continue
        targets = {head: recorded[head][rows] for head in members}
        said = None if opinions is None else {head: opinions[head][rows] for head in members}
        part = task_scores(whole, members, targets, measure, said)
        # Heads come before masks.
        unsure[rows, : len(whole)] = part.head_uncertainty
        contradicted[rows, : len(whole)] = part.head_disagreement
        doubt[rows, : len(whole)] = part.head_doubt
    for column, one in enumerate(learnt):
        if one.name in drawn:
            unsure[:, column], doubt[:, column] = drawn[one.name]
            contradicted[:, column] = doubt[:, column]
    scores = TaskScores.weighed(learnt, unsure, contradicted, doubt) if probabilities or drawn else None
    return Scored(ids, probabilities, scores, pixels, answers(heads))
