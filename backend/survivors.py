"""Which heads mean the same under two label configs: they go on where the others are learnt anew."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tasks.schema import Head, MaskHead

Answers = tuple[str, tuple[str, ...]]
"""What a head's outputs stand for: its kind, and its classes in the order of the columns."""


def answers(heads: Iterable[Head | MaskHead]) -> dict[str, Answers]:
    """By the heads' names."""
    return {head.name: (head.kind, head.classes) for head in heads}


def columns(before: Mapping[str, Answers], now: Sequence[Head | MaskHead]) -> dict[str, NDArray[np.intp]]:
    """For each head of `now` that was there before with the same kind and classes, where each class lay: intp (C,).

    The order of the classes, the weight and whether they are ordinal may differ: what an output says does not.
    """
    found = {}
    for head in now:
        kind, classes = before.get(head.name, ("", ()))
        if kind == head.kind and set(classes) == set(head.classes):
            found[head.name] = np.array([classes.index(name) for name in head.classes], dtype=np.intp)
    return found
