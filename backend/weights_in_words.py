"""What became of labels that count less than others, in words: nothing is weighed in silence."""

from collections.abc import Mapping
from typing import Any


def sentences(metrics: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What a version's figures per head say of weights, in words, for each head of which there is something to say."""
    return [f"{head}: {said}" for head, figures in metrics.items() if (said := _in_words(figures))]


def _in_words(figures: Mapping[str, Any]) -> str:
    parts = []
    if count := figures.get("suspects"):
        weigh = figures["suspects_weigh"]
        done = "weigh as all others" if weigh == 1 else "are not learnt from" if weigh == 0 else "weigh half"
        parts.append(f"{count} suspects nobody has reviewed {done}")
    if count := figures.get("unsure"):
        parts.append(f"{count} answers of people who were unsure, or not at one, weigh less")
    return "; ".join(parts)
