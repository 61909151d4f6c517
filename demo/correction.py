"""What an annotator who knows the true masks leaves on the screen: corrected where the model asked, or drawn anew."""

import json
import uuid
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tasks.codec import Result
from tasks.datafolder import DataFolder
from tasks.mask_codec import decode_masks, encode_masks
from tasks.mask_heads import Scope
from tasks.schema import Schema

Bools = NDArray[np.bool_]
Masks = Mapping[str, Bools]


def known_masks(read: DataFolder) -> Callable[[str], Masks]:
    """The true masks bool (C, H, W) of a file, by mask head; {} where they are not all known."""
    heads = [head.name for head in read.schema.masks]
    rows = {row.file: row for row in read.rows if heads and all(name in row.true_masks for name in heads)}

    def of(file: str) -> Masks:
        row = rows.get(file)
        return {} if row is None else {name: read.mask(row, name, truth=True) != 0 for name in heads}

    return of


def marked(schema: Schema, shown: Sequence[Result], truth: Masks) -> list[Result]:
    """The regions, rectangles and scope that the screen submits.

    shown: what a prediction shows of them. Inside its rectangles the masks become those of `truth`, bool (C, H, W) by
    mask head, outside they are left as they are, and the scope says "patches". Without a rectangle, or a scope to say
    so, the whole masks are drawn. Nothing is touched where `truth` is empty.
    """
    if not truth:
        return [region | {"origin": "prediction"} for region in shown]
    height, width = next(iter(truth.values())).shape[1:]
    found, scope = decode_masks(schema, shown, height, width), schema.roles.get("scope")
    inside = np.ones((height, width), dtype=np.bool_)
    said: Scope = "image"
    if found.patches and scope is not None and "patches" in scope.classes:
        said, inside = "patches", np.zeros((height, width), dtype=np.bool_)
        for patch in found.patches:
            inside[patch.y : patch.y + patch.height, patch.x : patch.x + patch.width] = True
    masks = {name: np.where(inside, truth[name], mask) for name, mask in found.masks.items()}
    sure = {name: [1.0] * len(mask) for name, mask in masks.items()}
    before = {str(region["id"]): region for region in shown}
    result: list[Result] = []
    for region in encode_masks(schema, height, width, masks, sure):
        drawn = {key: value for key, value in region.items() if key != "score"}
        suggested = before.get(str(region["id"]))
        if suggested is None:
            result.append(drawn | {"id": uuid.uuid4().hex[:10], "origin": "manual"})
        else:
            same = json.dumps(suggested["value"], sort_keys=True) == json.dumps(drawn["value"], sort_keys=True)
            origin = "prediction" if same else "prediction-changed"
            result.append(suggested | {"value": drawn["value"], "origin": origin})
    heads = {head.name for head in schema.masks}
    result += [region | {"origin": "prediction"} for region in shown if region["from_name"] not in heads]
    if scope is not None and said in scope.classes:
        about = {"from_name": scope.name, "to_name": scope.to_name, "type": "choices", "origin": "manual"}
        result.append(about | {"id": uuid.uuid4().hex[:10], "value": {"choices": [said]}})
    return result
