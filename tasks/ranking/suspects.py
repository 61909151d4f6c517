"""Which labels on record are probably wrong: a suspicion per task and head, and the seed document's rule."""

import numpy as np
from numpy.typing import NDArray

from tasks.schema import Head

Floats = NDArray[np.float32]

THRESHOLD = 0.2


def suspicion(probabilities: Floats, targets: Floats, head: Head) -> Floats:
    """The probability (N,) that the label on record does not hold; NaN without one.

    probabilities: (N, C), calibrated and out of fold. targets: (N, C) of 0 and 1, NaN rows without a label. For single
    choices and ratings 1 - p of the label, which ranks as cleanlab's self-confidence does (Northcutt et al. 2021); for
    multiple choices that of the class whose answer is least likely: a set is wrong where any of it is.
    """
    labelled = ~np.isnan(targets).any(axis=1)
    y = np.nan_to_num(targets)
    if head.multiple:
        held = np.where(y > 0, probabilities, 1 - probabilities).min(axis=1)
    else:
        held = (probabilities * y).sum(axis=1)
    found: Floats = np.where(labelled, np.clip(1 - held, 0, 1), np.nan).astype(np.float32)
    return found


def alternatives(head: Head) -> int:
    """Among how many answers a label is one: the head's classes, or yes and no where each class is ticked or not."""
    return 2 if head.multiple else len(head.classes)


def suspects(probabilities: Floats, targets: Floats, head: Head, threshold: float = THRESHOLD) -> NDArray[np.bool_]:
    """The document's rule (N,): the label's probability is below `threshold`, and the prediction differs."""
    y = np.nan_to_num(targets)
    doubted = suspicion(probabilities, targets, head) > 1 - threshold  # false for NaN
    if head.multiple:
        differs = ((probabilities >= 0.5) != (y > 0)).any(axis=1)
    else:
        differs = probabilities.argmax(axis=1) != y.argmax(axis=1)
    found: NDArray[np.bool_] = doubted & differs
    return found
