"""The text about masks: what the model has drawn, where it is least sure, and whether a mask on record looks wrong."""

from collections.abc import Sequence
from typing import Any

from tasks.schema import Schema
from tasks.why import Phrases, Reason


def why_drawn(
    schema: Schema, regions: Sequence[dict[str, Any]], reason: Reason, phrases: Phrases, alone: bool
) -> list[str]:
    """Lines about the regions that a task shows:

        Drawn by the model: nucleus. Least sure in the rectangles (5).
        Why now: the model is unsure.

    alone: nothing else is said of the task, so that these lines also give the reason.
    """
    shown = {
        (head.name, label): text for head in schema.masks for label, text in zip(head.classes, head.shown, strict=True)
    }
    found = dict.fromkeys(
        text
        for region in regions
        for label in region["value"].get(region["type"], ())
        if (text := shown.get((region["from_name"], label))) is not None
    )
    drawn = phrases.drawn.format(labels=phrases.between_labels.join(found)) if found else phrases.nothing_drawn
    look = schema.roles.get("look")
    rectangles = sum(look is not None and region["from_name"] == look.name for region in regions)
    lines = [f"{drawn} {phrases.least_sure.format(number=rectangles)}" if rectangles else drawn]
    return [*lines, phrases.why_now.format(reason=getattr(phrases, reason))] if alone else lines
