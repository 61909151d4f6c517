"""How unsure the model is of a task, from the probabilities of its members (Settles 2009, active learning survey).

Each measure is written once, for probabilities that sum to 1 over the last axis. A multiple-choice head is a set of
independent yes or no questions: each class becomes the pair (1 - p, p), and the task's score is the mean over classes.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

MOST_NATS = 4  # at which cross-entropy is cut
SMALLEST = 1e-8  # probability that a member's logarithm is taken of


class NoSpread(ValueError):
    """The measure needs several members and was given one."""


class Measure(Protocol):
    """members (M, N, C) float32 probabilities in, (N,) float32 in [0, 1] out."""

    def __call__(self, members: Floats, multiple: bool = False) -> Floats: ...


MEASURES: dict[str, Measure] = {}


def measure(*names: str, spread: bool = False) -> Callable[[Callable[[Floats], Floats]], Measure]:
    """Register a score of (M, ..., C) probabilities under its names, as a function of a head's members."""

    def register(score: Callable[[Floats], Floats]) -> Measure:
        def scored(members: Floats, multiple: bool = False) -> Floats:
            members = np.asarray(members, dtype=np.float32)
            if members.ndim != 3:
                raise ValueError(f"Members have the shape (members, tasks, classes), not {members.shape}.")
            if spread and len(members) < 2:
                raise NoSpread(
                    f"The uncertainty measure {names[0]!r} is the spread between members and there is only one: "
                    f"choose entropy, margin or least_confident, or repeat the cross-fit with more head seeds."
                )
            if multiple:
                pairs = np.stack([1 - members, members], axis=-1)
                return _unit(score(pairs).mean(axis=-1))
            if members.shape[2] < 2:  # one class leaves nothing to be unsure of
                return np.zeros(members.shape[1], dtype=np.float32)
            return _unit(score(members))

        scored.__name__, scored.__doc__ = score.__name__, score.__doc__
        for name in names:
            MEASURES[name] = scored
        return scored

    return register


def uncertainty(name: str, members: Floats, multiple: bool) -> Floats:
    """Score tasks by the measure of that name: members (M, N, C) -> (N,) float32 in [0, 1].

    Raises ValueError for a name that is not in MEASURES, NoSpread where the measure needs more than one member.
    """
    if name not in MEASURES:
        raise ValueError(f"There is no uncertainty measure {name!r}; there are {', '.join(sorted(MEASURES))}.")
    return MEASURES[name](members, multiple)


@measure("least_confident")
def least_confident(members: Floats) -> Floats:
    """(1 - max p) C / (C - 1) of the mean over members."""
    classes = members.shape[-1]
    missing: Floats = 1 - members.mean(axis=0).max(axis=-1)
    return missing * np.float32(classes / (classes - 1))


@measure("margin")
def margin(members: Floats) -> Floats:
    """1 - (p1 - p2) of the mean over members, p1 and p2 its two highest probabilities."""
    two_highest = np.partition(members.mean(axis=0), -2, axis=-1)[..., -2:]
    gap: Floats = 1 - (two_highest[..., 1] - two_highest[..., 0])
    return gap


@measure("entropy")
def entropy(members: Floats) -> Floats:
    """H(p) / log C of the mean over members."""
    return _entropy(members.mean(axis=0))


@measure("variance", spread=True)
def variance(members: Floats) -> Floats:
    """Population variance over members, summed over classes, times C / (C - 1).

    The factor makes 1 of the most C classes can vary, members that are sure of a different class each; for two classes
    the score is 4 var(p). Raises NoSpread for one member.
    """
    classes = members.shape[-1]
    total: Floats = members.var(axis=0).sum(axis=-1)
    return total * np.float32(classes / (classes - 1))


@measure("mutual_information", "bald", spread=True)
def mutual_information(members: Floats) -> Floats:
    """(H(mean p) - mean H(p)) / log C: what members disagree about (BALD, Houlsby et al. 2011).

    Raises NoSpread for one member.
    """
    expected: Floats = _entropy(members).mean(axis=0)
    return _entropy(members.mean(axis=0)) - expected


@measure("cross_entropy")
def cross_entropy(members: Floats) -> Floats:
    """Mean over members of -sum p log p_m, p their mean and p_m the member's; at most 4 nats, divided by 4.

    Uncertainty-Guided Annotation (arXiv 2404.07208), as its code has it. It is H(p) plus the mean divergence of p from
    the members: what cannot be known and what they disagree about, mixed.
    """
    mean = members.mean(axis=0)
    surprise = -np.log(np.maximum(members, np.float32(SMALLEST))).mean(axis=0)
    nats = np.einsum("...c,...c->...", mean, surprise)
    share: Floats = np.minimum(nats, MOST_NATS) / np.float32(MOST_NATS)
    return share


def _entropy(p: Floats) -> Floats:
    # The floor makes 0 log 0 = 0 without a mask; it is the smallest normal float32, so it changes no other term.
    nats = np.einsum("...c,...c->...", p, np.log(np.maximum(p, np.finfo(np.float32).tiny)))
    share: Floats = nats * np.float32(-1 / np.log(p.shape[-1]))
    return share


def _unit(scores: Floats) -> Floats:
    clipped: Floats = np.clip(scores, 0, 1)
    return clipped
