"""What annotators spent on masks: how many rectangles they reviewed, or whether the whole image."""

from typing import NamedTuple

from tasks.answers import strings
from tasks.marks import marking
from tasks.schema import Schema


class Spent(NamedTuple):
    """The rectangles reviewed, and the whole images."""

    patches: int
    images: int


def spent(schema: Schema, result: object) -> Spent:
    """What was reviewed for an annotation, by the rules of `mask_codec.decode_masks`; nothing is decoded.

    A rectangle counts also where its place cannot be read: it was looked at all the same. Never raises.
    """
    found, look, scope = marking(schema, result), schema.roles.get("look"), schema.roles.get("scope")
    patches = sum(look is not None and item["from_name"] == look.name for item in found)
    said = [
        chosen[0]
        for item in found
        if scope is not None and item["from_name"] == scope.name
        for chosen in [strings(item.get("value"), "choices") or []]
        if len(chosen) == 1 and chosen[0] in scope.classes
    ]
    whole = said[-1] == "image" if said else bool(found) and not patches
    return Spent(0, 1) if whole else Spent(patches, 0)
