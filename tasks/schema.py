"""Label config -> what is learnt: a project's XML as heads, roles, and a list of what is left alone."""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal
from xml.etree.ElementTree import Element

from tasks.label_config import (
    MASKS,
    Answers,
    SchemaError,
    answers_of,
    find_image,
    image_field,
    inside_repeaters,
    is_control,
    is_true,
    kind,
    read_xml,
    task_field,
    why_not_learnt,
)
from tasks.mask_heads import MaskHead, check_scope, mask_head

__all__ = ["ROLES", "Head", "Kind", "Labels", "MaskHead", "Role", "Schema", "SchemaError", "parse_label_config"]

Kind = Literal["single", "multiple", "rating"]

Labels = dict[str, tuple[str, ...]]
"""Head name -> class names in class order. A missing key: no label. () on a multiple head: nothing ticked."""

ROLES = ("why", "flag", "review", "confidence", "note", "similar", "look", "scope")

# Roles that are read or written need a tag that can hold them; the others are only kept apart from learning.
_ROLE_TAGS = {
    "why": ("textarea",),
    "note": ("textarea",),
    "flag": ("choices",),
    "review": ("choices",),
    "confidence": ("rating", "choices", "number"),
    "look": ("rectanglelabels", "rectangle"),
    "scope": ("choices",),
}


@dataclass(frozen=True)
class Head:
    """One control that is learnt.

    name: the control's name, `from_name` in results. classes: what Label Studio stores for each Choice, which is its
    alias, else its value; ratings: "1" to "N". weight: share of the loss; all heads' weights sum to 1. current: the
    task data field with the label to be checked. positive: the class whose probability AUC is computed on.
    shown: what the annotator reads for each class (the Choice's value).
    """

    name: str
    to_name: str
    kind: Kind
    classes: tuple[str, ...]
    weight: float
    ordinal: bool
    current: str | None
    positive: str | None
    required: bool
    shown: tuple[str, ...] = ()

    @property
    def multiple(self) -> bool:
        """Whether several classes may be ticked at once."""
        return self.kind == "multiple"


@dataclass(frozen=True)
class Role:
    """A tag that serves the loop and is not learnt. `classes` as in Head; empty for tags without any.

    field: the task data field that a `similar` tag shows, and that is ours to fill.
    """

    role: str
    name: str
    to_name: str
    tag: str
    classes: tuple[str, ...]
    field: str | None = None


@dataclass(frozen=True)
class Schema:
    """What a label config asks for.

    heads: labels of the whole image; empty where masks alone are learnt. masks: what is marked in the image.
    roles: by role name. left_alone: a sentence for each control or Choice not learnt, with the reason.
    left_alone_names: the names of these controls, whose results are passed over without complaint.
    """

    heads: tuple[Head, ...]
    image_name: str
    image_field: str
    group_field: str | None
    site_field: str | None
    roles: Mapping[str, Role]
    left_alone: tuple[str, ...]
    left_alone_names: frozenset[str] = frozenset()
    masks: tuple[MaskHead, ...] = ()

    @property
    def learnt(self) -> tuple[Head | MaskHead, ...]:
        """Heads, then masks. Where a project has both, its labels and its masks each make half of a task's score."""
        share = 0.5 if self.heads and self.masks else 1.0
        heads: tuple[Head | MaskHead, ...] = (*self.heads, *self.masks)
        return tuple(replace(head, weight=head.weight * share) for head in heads)

    def fingerprint(self) -> str:
        """sha256 hex over the names, kinds and classes of all heads: equal where a model's outputs mean the same."""
        heads: tuple[Head | MaskHead, ...] = (*self.heads, *self.masks)
        shape = [[head.name, head.kind, list(head.classes)] for head in heads]
        return hashlib.sha256(json.dumps(shape).encode()).hexdigest()


def parse_label_config(xml: str) -> Schema:
    """Reads a Label Studio label config.

    Learnt: Choices (single, single-radio, multiple), Rating, BrushLabels and PolygonLabels that point to the image.
    Raises SchemaError where the XML does not parse, names clash, an attribute of ours is wrong, or nothing is left to
    learn.
    """
    root = read_xml(xml)
    roles = _roles(root)
    repeated = inside_repeaters(root)
    controls = [tag for tag in root.iter() if is_control(tag) and tag.get("model_role") is None]
    reasons = {tag: why_not_learnt(tag, tag in repeated) for tag in controls}
    image = _image(root, [tag for tag in controls if reasons[tag] is None])

    learnt: list[tuple[Element, Answers]] = []
    masks: list[tuple[Element, Answers]] = []
    left_alone: list[str] = []
    left_alone_names: set[str] = set()
    for tag, reason in reasons.items():
        if reason is None and tag.get("toName") != image.get("name"):
            reason = f"it belongs to {tag.get('toName')!r}, not to the image {image.get('name')!r}"
        if reason is None:
            answers = answers_of(tag)
            left_alone += [
                f"Choice {choice!r} of {tag.get('name')!r} is left alone: it is nested in another Choice, where "
                f"Label Studio does not show it"
                for choice in answers.hidden
            ]
            if kind(tag) in MASKS:
                if answers.classes:
                    masks.append((tag, answers))
                    continue
                reason = "it has no Label"
            elif len(answers.classes) >= 2:
                learnt.append((tag, answers))
                continue
            else:
                reason = f"a model needs two or more classes to tell apart, and it has {len(answers.classes)}"
        left_alone.append(f"{tag.tag} {tag.get('name')!r} is left alone: {reason}")
        left_alone_names.add(tag.get("name", ""))
    if not learnt and not masks:
        raise SchemaError(
            f"The label config has nothing to learn: add a Choices, Rating, BrushLabels or PolygonLabels control with "
            f'toName="{image.get("name")}". Found: {"; ".join(left_alone) or "no control at all"}.'
        )
    weights, mask_weights = _weights([tag for tag, _ in learnt]), _weights([tag for tag, _ in masks])
    return Schema(
        heads=tuple(_head(tag, answers, weight) for (tag, answers), weight in zip(learnt, weights, strict=True)),
        image_name=image.get("name", ""),
        image_field=image_field(image),
        group_field=task_field(image, "model_group"),
        site_field=task_field(image, "model_site"),
        roles=roles,
        left_alone=tuple(left_alone),
        left_alone_names=frozenset(left_alone_names),
        masks=tuple(
            mask_head(tag, answers, weight) for (tag, answers), weight in zip(masks, mask_weights, strict=True)
        ),
    )


def _image(root: Element, learnable: list[Element]) -> Element:
    """The image of the heads; that of the masks where there are no heads, so that masks change nothing else."""
    return find_image(root, [tag for tag in learnable if kind(tag) not in MASKS] or learnable)


def _roles(root: Element) -> dict[str, Role]:
    roles: dict[str, Role] = {}
    for tag in root.iter():
        role = tag.get("model_role")
        if role is None:
            continue
        name = tag.get("name", "")
        if role not in ROLES:
            raise SchemaError(f"{tag.tag} {name!r} has the unknown model_role={role!r}: use one of {', '.join(ROLES)}.")
        if not name:
            raise SchemaError(f"The {tag.tag} with model_role={role!r} has no name: give it one.")
        if role in roles:
            raise SchemaError(
                f"{roles[role].name!r} and {name!r} both have model_role={role!r}: keep it on one of them."
            )
        allowed = _ROLE_TAGS.get(role)
        if allowed is not None and not (kind(tag) in allowed and is_control(tag)):
            raise SchemaError(
                f"{tag.tag} {name!r} cannot have model_role={role!r}: that needs a tag with toName of the type "
                f"{' or '.join(allowed)}."
            )
        classes = answers_of(tag).classes if kind(tag) in ("choices", "rating", "rectanglelabels") else ()
        if role == "flag" and not classes:
            raise SchemaError(f'{name!r} has model_role="flag" but no Choice to tick: add one.')
        field = _field_to_fill(root, tag) if role == "similar" else None
        roles[role] = Role(role, name, tag.get("toName", ""), tag.tag, classes, field)
    if "scope" in roles:
        check_scope(roles["scope"].name, roles["scope"].classes, look="look" in roles)
    return roles


def _field_to_fill(root: Element, tag: Element) -> str:
    """The task field that a tag with the role `similar` shows; nothing else may use it, since we write it."""
    name, value = tag.get("name"), tag.get("value", "").strip()
    if kind(tag) != "hypertext" or not re.fullmatch(r"\$\w+", value):
        raise SchemaError(
            f"{tag.tag} {name!r} cannot have model_role='similar': that needs a HyperText that shows one task field, "
            f'such as value="$similar".'
        )
    for other in root.iter():
        for attribute, text in other.attrib.items():
            same = text.strip() == value or (attribute.startswith("model_") and text.strip() == value[1:])
            if other is not tag and same and attribute != "model_role":
                raise SchemaError(
                    f"{name!r} has model_role='similar', so its task field {value!r} is written by the backend, and "
                    f"{other.tag} {other.get('name')!r} uses it too ({attribute}): give {name!r} a field of its own."
                )
    return value[1:]


def _head(tag: Element, answers: Answers, weight: float) -> Head:
    name = tag.get("name", "")
    choice = tag.get("choice", "single")
    if kind(tag) == "choices" and choice not in ("single", "single-radio", "multiple"):
        raise SchemaError(f"Choices {name!r} has choice={choice!r}: use single, single-radio or multiple.")
    head_kind: Kind = "single"
    if kind(tag) == "rating":
        head_kind = "rating"
    elif choice == "multiple":
        head_kind = "multiple"
    ordinal = is_true(tag, "model_ordinal")
    if ordinal and head_kind == "multiple":
        raise SchemaError(f"{name!r} is a multiple choice, which has no order: remove model_ordinal.")
    positive = tag.get("model_positive")
    if positive is not None and positive not in answers.classes:
        raise SchemaError(
            f"{name!r} has model_positive={positive!r}, which is none of its classes: {', '.join(answers.classes)}."
        )
    return Head(
        name=name,
        to_name=tag.get("toName", ""),
        kind=head_kind,
        classes=answers.classes,
        weight=weight,
        ordinal=ordinal or head_kind == "rating",
        current=task_field(tag, "model_current"),
        positive=positive,
        required=is_true(tag, "required"),
        shown=answers.shown,
    )


def _weights(tags: list[Element]) -> list[float]:
    """model_weight of each tag, scaled to sum to 1; tags without one share equally what the others leave of 1."""
    given = [_weight(tag) for tag in tags]
    if not given:
        return []
    without = [tag.get("name") for tag, weight in zip(tags, given, strict=True) if weight is None]
    if len(without) == len(tags):
        return [1 / len(tags)] * len(tags)
    total = math.fsum(weight for weight in given if weight is not None)
    if without and total >= 1:
        raise SchemaError(
            f"The model_weight values add up to {total:g}, which leaves nothing for "
            f"{', '.join(map(repr, without))}: give every control one (0: shown but not learnt), or lower them."
        )
    if not without and total == 0:
        raise SchemaError("Every model_weight is 0, so nothing would be learnt: give one control a weight.")
    share = (1 - total) / len(without) if without else 0.0
    weights = [share if weight is None else weight for weight in given]
    scale = math.fsum(weights)
    return [weight / scale for weight in weights]


def _weight(tag: Element) -> float | None:
    text = tag.get("model_weight")
    if text is None:
        return None
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not 0 <= weight <= 1e6:
        raise SchemaError(f"{tag.get('name')!r} has model_weight={text!r}: use a number such as 0.9.")
    return weight
