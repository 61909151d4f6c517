"""What is marked in a task's image: the annotations that count, painted one over the other."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.codec import Result
from tasks.labels import standing
from tasks.ledger import canonical
from tasks.mask_codec import decode_masks
from tasks.schema import Schema
from tasks.tables import Annotation

Bytes = NDArray[np.uint8]


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
    for annotation in _holding(schema, annotations):
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
    said = [marking(schema, annotation.result) for annotation in _holding(schema, annotations)]
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
    return [] if all(look is not None and untouched_rectangle(schema, item) for item in found) else found


def untouched_rectangle(schema: Schema, item: object) -> bool:
    """Whether a result is a rectangle of ours on which the annotator did nothing: every submission carries them."""
    look = schema.roles.get("look")
    return (
        look is not None
        and isinstance(item, dict)
        and item.get("from_name") == look.name
        and item.get("origin") == "prediction"
    )


def _holding(schema: Schema, annotations: Iterable[Annotation]) -> list[Annotation]:
    """The annotations that paint, in their order."""
    found = standing(annotations)
    there = [] if found.flagged else [*found.record, *found.people]
    return [annotation for annotation in there if marking(schema, annotation.result)]
