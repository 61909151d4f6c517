"""One value of Label Studio's JSON, whatever it holds, as classes of a control, a confidence or text."""

import math
import reprlib

from tasks.schema import Head, Role

# Quotes odd values in problems; bounded, however long or deep they are.
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60


def in_class_order(head: Head, labels: set[str]) -> tuple[str, ...]:
    """Labels in the order of the head's classes, so that equal answers are equal tuples."""
    return tuple(name for name in head.classes if name in labels)


def read_answer(head: Head, value: object) -> tuple[tuple[str, ...] | None, str]:
    """(labels, "") or (None, problem); () where the control was answered and emptied again."""
    if head.kind == "rating":
        rating = value.get("rating") if isinstance(value, dict) else None
        if isinstance(rating, bool) or not isinstance(rating, int | float):
            return None, f"The result for {head.name!r} has no rating."
        if rating == 0:
            return (), ""
        found = class_of(head, as_text(rating))
        if found is None:
            return None, f"{head.name!r} has the rating {brief(rating)}, outside 1 to {len(head.classes)}."
        return (found,), ""
    labels = strings(value, "choices")
    if labels is None:
        return None, f"The result for {head.name!r} has no list of choices."
    unknown = [label for label in labels if label not in head.classes]
    if unknown:
        return None, f"{', '.join(map(brief, unknown))} is no class of {head.name!r} ({', '.join(head.classes)})."
    if len(set(labels)) > 1 and not head.multiple:
        return None, f"{head.name!r} takes one choice, but the result has {', '.join(labels)}."
    return in_class_order(head, set(labels)), ""


def read_confidence(role: Role | None, value: object) -> tuple[float | None, tuple[str, ...]]:
    """A rating or choice by its place between first (0) and last (1); a number in [0, 1] as it is."""
    if role is None or value is None:
        return None, ()
    place = None
    if isinstance(value, dict) and role.tag.lower() == "number":
        place = _number(value.get("number"))
    elif isinstance(value, dict):
        rating = _number(value.get("rating"))
        chosen = strings(value, "choices") if rating is None else [as_text(rating)]
        if chosen and chosen[0] in role.classes:
            place = role.classes.index(chosen[0]) / max(len(role.classes) - 1, 1)
    if place is None or not 0 <= place <= 1:
        return None, (f"The result for {role.name!r} is no confidence: {brief(value)}.",)
    return place, ()


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # A JSON integer may be too large for a float.
    return float(value) if abs(value) < 1e9 else None


def strings(value: object, key: str) -> list[str] | None:
    """A list of strings (or one string) under `key` of a result's value; None where there is none."""
    found = value.get(key) if isinstance(value, dict) else None
    if isinstance(found, str):
        return [found]
    if isinstance(found, list) and all(isinstance(item, str) for item in found):
        return found
    return None


def class_of(head: Head, text: str) -> str | None:
    """The class a text names, by alias or else by what is shown."""
    if text in head.classes:
        return text
    return head.classes[head.shown.index(text)] if text in head.shown else None


def as_text(value: object) -> str:
    """A value as a class would be written: 4 and 4.0 as "4"; nothing and not-a-number as ""."""
    if isinstance(value, float):
        if math.isnan(value):
            return ""
        if value.is_integer():
            return str(int(value))
    if value is None:
        return ""
    return str(value).strip() if isinstance(value, str | int | float) else brief(value)


def brief(value: object) -> str:
    """Any value as a short quotation for a message."""
    return _SHORT.repr(value)
