"""The head of the queue: ranked tasks, and among them those drawn at random for honest figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Kind = Literal["ranked", "control", "blind", "holdout"]

CONTROL_ENOUGH = 200  # reviewed control tasks, after which their share halves


class Shares(NamedTuple):
    """Of the slots: the control arm (blind half included) and the hold-out."""

    control: float
    holdout: float


@dataclass(frozen=True)
class Slot:
    """A task and why it is in the queue. control and blind are the two halves of the control arm."""

    task: int
    kind: Kind

    @property
    def blind(self) -> bool:
        """Shown without pre-annotation."""
        return self.kind in ("blind", "holdout")


def shares(reviewed_control: int) -> Shares:
    """What part of the queue is drawn at random, by how many control tasks (blind ones included) are reviewed."""
    return Shares(control=0.2 if reviewed_control < CONTROL_ENOUGH else 0.1, holdout=0.05)


def slots(n: int, share: Shares, rng: np.random.Generator) -> NDArray[np.str_]:
    """Draw the kind of each of n slots, independently; half of the control arm is blind."""
    control = share.control / 2
    kinds: tuple[Kind, ...] = ("control", "blind", "holdout", "ranked")
    return rng.choice(kinds, size=n, p=[control, control, share.holdout, 1 - share.control - share.holdout])


def lay_out(
    ranked: Sequence[int],
    control_pool: Sequence[int],
    holdout_pool: Sequence[int],
    n: int,
    reviewed_control: int,
    rng: np.random.Generator,
) -> list[Slot]:
    """Lay out a queue of n slots; no task comes twice.

    ranked: task ids, best first; n of them are always enough. control_pool: all open tasks that are not hold-out,
    those that rank high included. holdout_pool: the open hold-out tasks.

    The control arm is drawn first, uniformly from its whole pool, and only then do the ranked tasks that it left take
    the ranked slots in their order. To draw it from what ranking leaves would leave out just the tasks the model
    doubts, and every estimate from it would flatter. A slot whose pool is spent goes to the ranked order; where that is
    spent too the queue is shorter than n.

    Raises ValueError where a hold-out task is also ranked or in the control pool.
    """
    leaked = set(holdout_pool) & {*ranked, *control_pool}
    if leaked:
        raise ValueError(f"Task {min(leaked)} is in the hold-out and may be neither ranked nor in the control arm.")
    kinds = slots(n, shares(reviewed_control), rng)
    control = _draw(control_pool, int(np.isin(kinds, ("control", "blind")).sum()), rng)
    holdout = _draw(holdout_pool, int((kinds == "holdout").sum()), rng)
    drawn = {*control, *holdout}
    left = iter([task for task in dict.fromkeys(ranked) if task not in drawn])
    arm, frozen = iter(control), iter(holdout)
    sources = {"control": arm, "blind": arm, "holdout": frozen, "ranked": left}
    queue = []
    for kind in kinds.tolist():
        task = next(sources[kind], None)
        if task is None:
            kind, task = "ranked", next(left, None)
        if task is not None:
            queue.append(Slot(task, kind))
    return queue


def queue_key(rank: int) -> float:
    """prediction.score of the task at this rank, from 0: Label Studio serves the lowest first.

    (rank + 1) / 1e6: unique, increasing, and never 0, which reads as no score. Raises ValueError for a rank below 0.
    """
    if rank < 0:
        raise ValueError(f"Ranks count from 0; {rank} is none.")
    return (rank + 1) / 1e6


def _draw(pool: Sequence[int], count: int, rng: np.random.Generator) -> list[int]:
    rows = rng.permutation(len(pool))[:count]
    return [pool[row] for row in rows.tolist()]
