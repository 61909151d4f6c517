"""Label Studio JSON <-> masks: regions of annotations and predictions, and the rectangles on parts of the image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.answers import brief, strings
from tasks.codec import Result
from tasks.mask_heads import MaskHead
from tasks.polygons import from_percent, mask_polygons, polygon_mask, to_percent
from tasks.rle import RleError, decode_mask, encode_mask
from tasks.schema import Role, Schema

Bools = NDArray[np.bool_]

INSIDE = 128  # of 255: the brush softens its border, which is inside where it covers half of a pixel
FAR = 1e6  # percent of the image: nobody draws so far outside


@dataclass(frozen=True)
class Patch:
    """A rectangle of the image, in pixels from the upper left corner.

    score: how uncertain the model was there, None where a person drew it. label: a class of the `look` control; ""
    for the first one, or where it has none.
    """

    x: int
    y: int
    width: int
    height: int
    score: float | None = None
    label: str = ""


@dataclass(frozen=True)
class DecodedMasks:
    """What an annotation or prediction marks in an image.

    masks: per mask head (C, H, W), True inside. reviewed: (H, W), the pixels on which that is the annotator's word.
    complete: per mask head (C,), False where a region of that class could not be read, so that its mask lacks
    something: trustworthy is a class where it is complete and the pixel is reviewed. patches: the rectangles, as they
    were left. problems: a sentence for each result that could not be read or means nothing.
    """

    masks: Mapping[str, Bools]
    reviewed: Bools
    complete: Mapping[str, Bools]
    patches: tuple[Patch, ...]
    problems: tuple[str, ...]


class _Unreadable(ValueError):
    """This region says nothing; the message says why."""


def decode_masks(schema: Schema, result: object, height: int, width: int) -> DecodedMasks:
    """Reads the regions in the `result` list of an annotation or prediction for an image of that size, in pixels.

    Never raises: what it cannot read becomes a problem. Regions of one class are united. Results that are no objects,
    or for other controls, are those of `codec.decode_result`.

    Reviewed is what the `scope` control says: the rectangles, or the whole image. Unanswered, or without such a
    control: the rectangles where there are any, else the whole image, if anything was marked in it at all.
    """
    heads = {head.name: head for head in schema.masks}
    look, scope = schema.roles.get("look"), schema.roles.get("scope")
    masks = {head.name: np.zeros((len(head.classes), height, width), dtype=np.bool_) for head in schema.masks}
    complete = {head.name: np.ones(len(head.classes), dtype=np.bool_) for head in schema.masks}
    unknown = np.zeros((height, width), dtype=np.bool_)
    patches: list[Patch] = []
    problems: list[str] = []
    said: str | None = None
    marked = False
    for item in result if isinstance(result, list) else []:
        if not isinstance(item, dict):
            continue
        name = item.get("from_name")
        if scope is not None and name == scope.name:
            said, problem = _scope(scope, item.get("value"))
            problems += problem
        elif look is not None and name == look.name:
            try:
                patches.append(_patch(look, item, height, width))
            except _Unreadable as error:
                problems.append(f"{_region(item)}: {error}.")
        elif isinstance(name, str) and name in heads:
            marked = True
            head = heads[name]
            known, problem = _labels(head, item)
            problems += problem
            try:
                region = _mask(head, item, height, width)
            except _Unreadable as error:
                problems.append(f"{_region(item)}: {error}.")
                # Nobody knows which pixels these are, so that none of its class can be held for background.
                complete[name][known or slice(None)] = False
                continue
            if not region.any():
                problems.append(f"{_region(item)} holds no pixel: draw it again, or delete it.")
            masks[name][known] |= region
            if not known:
                unknown |= region
    if scope is not None and said == "patches" and not patches:
        problems.append(f"{scope.name!r} says that the rectangles were reviewed, and there is none.")
    if said is None and (marked or patches):
        said = "patches" if patches else "image"
    reviewed = np.full((height, width), said == "image")
    for patch in patches if said == "patches" else []:
        reviewed[patch.y : patch.y + patch.height, patch.x : patch.x + patch.width] = True
    return DecodedMasks(masks, reviewed & ~unknown, complete, tuple(patches), tuple(problems))


def encode_masks(
    schema: Schema,
    height: int,
    width: int,
    masks: Mapping[str, Bools],
    scores: Mapping[str, Sequence[float]],
    patches: Sequence[Patch] = (),
) -> list[Result]:
    """A prediction's regions for an image of that size in pixels, and its rectangles where there is a `look` control.

    masks: per mask head (C, H, W); heads not in it, and classes without a pixel, get no region. A brush draws one
    region a class, as it is (`smoothing.smooth` makes it one that draws at once), a polygon one for each connected
    part. scores: per head (C,), in [0, 1], how sure the model is of each class's region. Ids follow from the order, so
    that the same masks are the same result. Raises ValueError for masks of another shape and patches outside the
    image, naming them.
    """
    results: list[Result] = []
    for head in schema.masks:
        if head.name not in masks:
            continue
        expected = (len(head.classes), height, width)
        if masks[head.name].shape != expected:
            raise ValueError(f"{head.name!r} needs masks of {expected}, but got {masks[head.name].shape}.")
        for index, (name, mask) in enumerate(zip(head.classes, masks[head.name], strict=True)):
            score = {"score": round(float(scores[head.name][index]), 4)}
            values: list[dict[str, object]] = []
            if head.kind == "polygon":
                outlines = (to_percent(points, height, width) for points in mask_polygons(mask))
                values = [{"points": points.round(4).tolist(), "closed": True} for points in outlines]
            elif mask.any():
                values = [{"format": "rle", "rle": encode_mask(mask.astype(np.uint8) * 255)}]
            for number, value in enumerate(values):
                kind = f"{head.kind}labels"
                entry = _result(head.name, head.to_name, f"{index}-{number}", kind, value | {kind: [name]})
                results.append(entry | _size(height, width) | score)
    look = schema.roles.get("look")
    for number, patch in enumerate(patches if look is not None else ()):
        assert look is not None
        results.append(_rectangle(look, patch, number, height, width))
    return results


def _region(item: Mapping[str, Any]) -> str:
    return f"Region {brief(item.get('id'))} of {item.get('from_name')!r}"


def _scope(scope: Role, value: object) -> tuple[str | None, list[str]]:
    chosen = strings(value, "choices") or []
    if len(chosen) == 1 and chosen[0] in scope.classes:
        return chosen[0], []
    return None, [f"The result for {scope.name!r} is none of {', '.join(scope.classes)}: {brief(value)}."]


def _labels(head: MaskHead, item: Mapping[str, Any]) -> tuple[list[int], list[str]]:
    """The classes of a region by number, and what is wrong with its labels."""
    found = strings(item.get("value"), f"{head.kind}labels")
    if not found:
        return [], [f"{_region(item)} has no label: give it one of {', '.join(head.classes)}."]
    known = [head.classes.index(label) for label in dict.fromkeys(found) if label in head.classes]
    unknown = [label for label in found if label not in head.classes]
    if not unknown:
        return known, []
    named = ", ".join(map(brief, unknown))
    return known, [f"{_region(item)} has the label {named}, no class of {head.name!r} ({', '.join(head.classes)})."]


def _mask(head: MaskHead, item: Mapping[str, Any], height: int, width: int) -> Bools:
    """The mask (H, W) of a region; raises _Unreadable."""
    _check_size(item, height, width)
    value = item.get("value")
    value = value if isinstance(value, dict) else {}
    if head.kind == "brush":
        if "rle" not in value:
            raise _Unreadable("it has no rle, which is how a brush's mask is written")
        try:
            inside: Bools = decode_mask(value["rle"], height, width) >= INSIDE
        except RleError as error:
            raise _Unreadable(str(error)) from error
        return inside
    points = value.get("points")
    corners = [_numbers(point, 2) for point in points] if isinstance(points, list) else []
    if len(corners) < 3:
        raise _Unreadable(f"it has {len(corners)} points, and a polygon has three or more")
    return polygon_mask(from_percent(np.array(corners), height, width), height, width)


def _patch(look: Role, item: Mapping[str, Any], height: int, width: int) -> Patch:
    """The rectangle of a result, whole pixels inside the image; raises _Unreadable."""
    _check_size(item, height, width)
    value = item.get("value")
    value = value if isinstance(value, dict) else {}
    sides = [value.get(side) for side in ("x", "y", "width", "height", "rotation")]
    x, y, across, down, turned = _numbers([*sides[:4], sides[4] or 0], 5)
    if turned:
        raise _Unreadable("it is rotated, and only upright rectangles are read: draw it again")
    left, right = (min(max(round(edge * width / 100), 0), width) for edge in (x, x + across))
    top, bottom = (min(max(round(edge * height / 100), 0), height) for edge in (y, y + down))
    if left >= right or top >= bottom:
        raise _Unreadable("it holds no pixel: draw it again, or delete it")
    labels = [label for label in strings(value, "rectanglelabels") or [] if label in look.classes]
    score = _number(item.get("score"))
    return Patch(left, top, right - left, bottom - top, score, labels[0] if labels else "")


def _check_size(item: Mapping[str, Any], height: int, width: int) -> None:
    drawn_on = (item.get("original_width", width), item.get("original_height", height))
    if drawn_on != (width, height):
        raise _Unreadable(
            f"it was drawn on an image of {brief(drawn_on[0])} x {brief(drawn_on[1])} pixels, and the image has "
            f"{width} x {height} now: put the old image back, or draw it again"
        )


def _numbers(values: object, count: int) -> list[float]:
    found = [_number(value) for value in values] if isinstance(values, list) else []
    numbers = [number for number in found if number is not None]
    if len(numbers) != count or len(found) != count:
        raise _Unreadable(f"it has no usable place: {brief(values)}")
    return numbers


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) <= FAR else None  # also without not-a-number, and integers beyond floats


def _rectangle(look: Role, patch: Patch, number: int, height: int, width: int) -> Result:
    if not (0 <= patch.x < patch.x + patch.width <= width and 0 <= patch.y < patch.y + patch.height <= height):
        raise ValueError(f"{patch} is not inside an image of {width} x {height} pixels.")
    value: dict[str, object] = {
        "x": patch.x * 100 / width,
        "y": patch.y * 100 / height,
        "width": patch.width * 100 / width,
        "height": patch.height * 100 / height,
        "rotation": 0,
    }
    kind = look.tag.lower()
    if look.classes:
        value[kind] = [patch.label or look.classes[0]]
    entry = _result(look.name, look.to_name, str(number), kind, value) | _size(height, width)
    return entry if patch.score is None else entry | {"score": round(patch.score, 4)}


def _size(height: int, width: int) -> Result:
    return {"original_width": width, "original_height": height, "image_rotation": 0}


def _result(name: str, to_name: str, number: str, kind: str, value: dict[str, object]) -> Result:
    return {"id": f"{name}-{number}", "from_name": name, "to_name": to_name, "type": kind, "value": value}
