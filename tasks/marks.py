"""What is marked in a task's image: the annotations that count, painted one over the other."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tasks.answers import strings
from tasks.codec import Result
from tasks.labels import standing
from tasks.ledger import canonical
from tasks.mask_codec import decode_masks
from tasks.schema import Schema
from tasks.tables import Annotation

Bytes = NDArray[np.uint8]

COMPARED = 50_000_000
"""Pixels of the largest image whose masks are compared one by one: what a result says of its image, nobody checked."""


@dataclass(frozen=True)
class Marks:
    """What people marked in one image.

    masks: uint8 (C, H, W), 1 inside a class, in the order of `planes`. reviewed: uint8 (H, W), 1 where the masks are
    somebody's word; elsewhere they are 0 and say nothing. problems: a sentence for each result that could not be read.
    """

    masks: Bytes
    reviewed: Bytes
    problems: tuple[str, ...]


def planes(schema: Schema) -> tuple[tuple[str, str], ...]:
    """(head, class) of each of the C planes, wherever arrays join all mask heads."""
    return tuple((head.name, name) for head in schema.masks for name in head.classes)


def paint(schema: Schema, annotations: Iterable[Annotation], height: int, width: int) -> Marks:
    """What the annotations of a task mark in its image of that size, in pixels.

    Those that count (`labels.standing`) paint the pixels they reviewed over what came before: first the record, then
    people, the latest last; how sure they were does not matter. While a task waits for an expert nothing is painted.
    Of an annotation with a region that cannot be read nobody knows where it is background, so it paints nothing. Never
    raises.
    """
    masks = np.zeros((len(planes(schema)), height, width), dtype=np.uint8)
    reviewed = np.zeros((height, width), dtype=np.uint8)
    problems: list[str] = []
    for annotation in holding(schema, annotations):
        said = decode_masks(schema, annotation.result, height, width)
        problems += [f"Annotation {annotation.id}: {problem}" for problem in said.problems]
        if not all(flags.all() for flags in said.complete.values()):
            problems.append(f"Annotation {annotation.id} teaches no mask until all its regions can be read.")
            continue
        plane = iter(masks)
        for head in schema.masks:
            for mask in said.masks[head.name]:
                np.copyto(next(plane), mask, where=said.reviewed)
        reviewed |= said.reviewed
    return Marks(masks, reviewed, tuple(problems))


def digest(schema: Schema, annotations: Iterable[Annotation]) -> str:
    """sha256 (hex) of all that `paint` makes its arrays of, but for the image's size; "" where nothing is marked.

    Nothing is decoded: equal digests paint the same, others may.
    """
    said = [marking(schema, annotation.result) for annotation in holding(schema, annotations)]
    if not said:
        return ""
    look, scope = schema.roles.get("look"), schema.roles.get("scope")
    shape = [[head.name, head.kind, head.classes] for head in schema.masks]
    names = [None if role is None else role.name for role in (look, scope)]
    return hashlib.sha256(canonical([shape, names, said]).encode()).hexdigest()


def marking(schema: Schema, result: object) -> list[Result]:
    """The results of an annotation by which it marks something or says what was reviewed; [] where it does neither.

    Regions, the answer of the `scope` control, and the rectangles; but rectangles of ours that were left as they came
    are no answer of their own.
    """
    if not schema.masks or not isinstance(result, list):
        return []
    look, scope = schema.roles.get("look"), schema.roles.get("scope")
    names = [control.name for control in (*schema.masks, look, scope) if control is not None]
    found = [item for item in result if isinstance(item, dict) and item.get("from_name") in names]
    return [] if all(_untouched_rectangle(schema, item) for item in found) else found


def answers(schema: Schema, result: object) -> object:
    """An annotation's results without our own rectangles left as they came, which every submission carries."""
    if not isinstance(result, list):
        return result
    return [item for item in result if not _untouched_rectangle(schema, item)]


def fits(schema: Schema, results: Iterable[Result]) -> bool:
    """Whether the label config has the labels of our regions and rectangles still; no mask is decoded."""
    controls = {head.name: (f"{head.kind}labels", head.classes) for head in schema.masks}
    if look := schema.roles.get("look"):
        controls[look.name] = (look.tag.lower(), look.classes)
    for item in results:
        kind, classes = controls.get(item["from_name"], ("", ()))
        if kind and not (item["type"] == kind and set(strings(item["value"], kind) or ()) <= set(classes)):
            return False
    return True


def short(results: Iterable[Result]) -> dict[str, list[str]]:
    """Regions, rectangles and choices for people, by control: {"mask": ["nucleus 14 regions"], "scope": ["image"]}."""
    counts: dict[str, Counter[str]] = {}
    chosen: dict[str, list[str]] = {}
    for item in results:
        name, kind, value = str(item.get("from_name")), str(item.get("type")), item.get("value")
        if kind == "choices":
            chosen[name] = strings(value, kind) or []
        elif kind.startswith("rectangle"):
            counts.setdefault(name, Counter())[""] += 1
        elif kind.endswith("labels"):
            counts.setdefault(name, Counter()).update(strings(value, kind) or ["no label"])
    return {name: [_counted(*pair) for pair in count.items()] for name, count in counts.items()} | chosen


def verdict(
    schema: Schema, result: object, shown: Sequence[Result]
) -> Literal["labelled", "confirmed", "corrected"] | None:
    """What an annotation makes of the masks it was shown; None where it says nothing of them.

    labelled: the model had suggested nothing. confirmed: inside what was reviewed, every pixel is as it was suggested.
    corrected: some are not, or that cannot be told: a region cannot be read, or the image has over COMPARED pixels.
    """
    marked = marking(schema, result)
    if not marked:
        return None
    heads = [head.name for head in schema.masks]
    look = schema.roles.get("look")
    suggested = [item for item in shown if item["from_name"] in (*heads, None if look is None else look.name)]
    if not suggested:
        return "labelled"
    if _values(heads, marked) == _values(heads, suggested):
        return "confirmed"
    size = _size([*marked, *suggested])
    if size is None:
        return "corrected"
    said, model = (decode_masks(schema, results, *size) for results in (marked, suggested))
    if not all(flags.all() for flags in said.complete.values()):
        return "corrected"
    if not said.reviewed.any():
        return None
    same = all((said.masks[name] == model.masks[name])[:, said.reviewed].all() for name in heads)
    return "confirmed" if same else "corrected"


def holding(schema: Schema, annotations: Iterable[Annotation]) -> list[Annotation]:
    """The annotations of a task that paint, in their order."""
    found = standing(annotations)
    there = [] if found.flagged else [*found.record, *found.people]
    return [annotation for annotation in there if marking(schema, annotation.result)]


def _untouched_rectangle(schema: Schema, item: object) -> bool:
    look = schema.roles.get("look")
    return (
        look is not None
        and isinstance(item, dict)
        and item.get("from_name") == look.name
        and item.get("origin") == "prediction"
    )


def _counted(label: str, number: int) -> str:
    """A number of regions of a class, or of rectangles, which have none."""
    what = "region" if label else "rectangle"
    return f"{label} {number} {what}{'s' * (number > 1)}".lstrip()


def _values(heads: Sequence[str], results: Sequence[Result]) -> list[Any]:
    """What regions are made of, whatever their order, ids and scores."""
    found = [[item["from_name"], item.get("value")] for item in results if item["from_name"] in heads]
    return sorted(found, key=canonical)


def _size(results: Sequence[Result]) -> tuple[int, int] | None:
    """(height, width) of the image that regions were drawn on; None where none says it, or it is too large."""
    for item in results:
        height, width = item.get("original_height"), item.get("original_width")
        if isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0:
            return (height, width) if height * width <= COMPARED else None
    return None
