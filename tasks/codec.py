"""Label Studio JSON <-> labels and arrays: results of annotations and predictions, and labels in task data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.answers import as_text, brief, class_of, in_class_order, read_answer, read_confidence, strings
from tasks.schema import Head, Labels, Schema

Result = dict[str, Any]
"""One entry of a Label Studio `result` list."""


@dataclass(frozen=True)
class Decoded:
    """What an annotation or prediction says.

    confidence: the annotator's own, 0 (least) to 1. note: the expert's text. shown: the `why` text as it was on the
    screen. problems: a sentence for each result that could not be read; the label it was for is missing.
    """

    labels: Labels
    flagged: bool
    confidence: float | None
    note: str
    shown: str
    problems: tuple[str, ...]


def decode_result(schema: Schema, result: object) -> Decoded:
    """Reads the `result` list of an annotation or prediction. Never raises: what it cannot read becomes a problem.

    Masks are for `mask_codec.decode_masks`, as they need the image's size.

    Several results for one head: the last counts; for a multiple head, all together. A multiple head without result
    has nothing ticked `()` if it may be left empty and the annotator answered anything else; otherwise no label.
    """
    labels: Labels = {}
    problems: list[str] = []
    broken: set[str] = set()
    role_values: dict[str, object] = {}
    answered = False
    heads = {head.name: head for head in schema.heads}
    passed_over = schema.left_alone_names | {head.name for head in schema.masks}
    roles = {role.name: role for role in schema.roles.values()}
    if not isinstance(result, list):
        problems.append(f"The result is not a list but {brief(result)}.")
        result = []
    for item in result:
        if not isinstance(item, dict):
            problems.append(f"A result is not an object but {brief(item)}.")
            continue
        name = item.get("from_name")
        if not isinstance(name, str):
            if item.get("type") != "relation":
                problems.append(f"A result names no control (from_name is {brief(name)}).")
            continue
        if name in roles:
            role_values[roles[name].role] = item.get("value")
            answered |= roles[name].role != "why"
        elif name in heads:
            found, problem = read_answer(heads[name], item.get("value"))
            answered |= bool(found)
            if found is None:
                broken.add(name)
                problems.append(problem)
            elif heads[name].multiple:
                labels[name] = in_class_order(heads[name], {*labels.get(name, ()), *found})
            else:
                broken.discard(name)
                labels[name] = found
        elif name in passed_over:
            answered = True
        else:
            problems.append(f"A result is for {name!r}, which is no control of the label config.")
    for head in schema.heads:
        if head.name not in broken and labels.get(head.name):
            continue
        labels.pop(head.name, None)
        if head.name not in broken and head.multiple and not head.required and answered:
            labels[head.name] = ()
    confidence, unclear = read_confidence(schema.roles.get("confidence"), role_values.get("confidence"))
    return Decoded(
        labels=labels,
        flagged=bool(strings(role_values.get("flag"), "choices")),
        confidence=confidence,
        note="\n".join(strings(role_values.get("note"), "text") or ()),
        shown="\n".join(strings(role_values.get("why"), "text") or ()),
        problems=(*problems, *unclear),
    )


def decode_current(schema: Schema, data: Mapping[str, object]) -> tuple[Labels, tuple[str, ...]]:
    """Labels in the `model_current` fields of a task's data, and a sentence for each that could not be read.

    Text and numbers; for multiple heads lists, or texts joined by "|". A class may be written as it is stored (alias)
    or as it is shown (value), so that an alias also serves for a second spelling. Blank is no label; an empty list on
    a multiple head is nothing ticked.
    """
    labels: Labels = {}
    problems: list[str] = []
    for head in schema.heads:
        if head.current is None:
            continue
        value = data.get(head.current)
        texts = [as_text(item) for item in value] if isinstance(value, list) else [as_text(value)]
        if head.multiple and len(texts) == 1 and class_of(head, texts[0]) is None:
            texts = [part.strip() for part in texts[0].split("|")]
        texts = [text for text in texts if text]
        if not texts and not (head.multiple and value == []):
            continue
        classes = {text: class_of(head, text) for text in texts}
        unknown = [text for text, found in classes.items() if found is None]
        if unknown:
            problems.append(
                f"Task field {head.current!r} has {', '.join(map(brief, unknown))}, no class of {head.name!r} "
                f"({', '.join(head.classes)})."
            )
        elif len(classes) > 1 and not head.multiple:
            problems.append(f"Task field {head.current!r} has {len(classes)} labels, but {head.name!r} takes one.")
        else:
            labels[head.name] = in_class_order(head, {found for found in classes.values() if found})
    return labels, tuple(problems)


def encode_prediction(schema: Schema, probabilities: Mapping[str, ArrayLike], why: str) -> list[Result]:
    """A prediction's `result`: the likeliest answer of each head with its `score`, and the `why` text.

    probabilities: per head (C,), each in [0, 1]; heads not in it get no result. A multiple head of which no class
    reaches 0.5 gets none either, unless it is required: then its likeliest class is ticked. Raises ValueError for
    probabilities of the wrong shape or range, naming the head.
    """
    results = []
    for head in schema.heads:
        if head.name not in probabilities:
            continue
        row = _probabilities(head, probabilities[head.name])
        labels = ticked(head, row)
        if labels:
            results.append(_answer(head, labels) | {"score": round(confidence_in(head, row, labels), 4)})
    return results + encode_why(schema, why)


def encode_why(schema: Schema, why: str) -> list[Result]:
    """The `why` text alone, for tasks shown without a suggestion; empty where the config has no such control."""
    role = schema.roles.get("why")
    if role is None or not why:
        return []
    return [_result(role.name, role.to_name, "textarea", {"text": [why]})]


def encode_labels(schema: Schema, labels: Labels) -> list[Result]:
    """The `result` an annotator would submit for these labels. Raises ValueError for a class the head has not.

    Nothing ticked leaves no result, as in Label Studio, so that it cannot be told from an empty annotation where no
    other control was answered.
    """
    for head in schema.heads:
        for label in labels.get(head.name, ()):
            _check_class(head, label)
    return [_answer(head, labels[head.name]) for head in schema.heads if labels.get(head.name)]


def to_targets(heads: Sequence[Head], rows: Sequence[Labels]) -> dict[str, NDArray[np.float32]]:
    """Per head float32 (N, C): one-hot, or several ones for multiple heads; a row of NaN where there is no label.

    Raises ValueError for a class the head has not.
    """
    targets: dict[str, NDArray[np.float32]] = {}
    for head in heads:
        column = {name: index for index, name in enumerate(head.classes)}
        target = np.full((len(rows), len(column)), np.nan, dtype=np.float32)
        for index, labels in enumerate(rows):
            if head.name not in labels:
                continue
            target[index] = 0.0
            for label in labels[head.name]:
                _check_class(head, label)
                target[index, column[label]] = 1.0
        targets[head.name] = target
    return targets


def to_labels(head: Head, probabilities: ArrayLike) -> tuple[str, ...]:
    """The answer that probabilities (C,) stand for: the likeliest class; for multiple heads all of at least 0.5."""
    row = _probabilities(head, probabilities)
    if head.multiple:
        return tuple(name for name, p in zip(head.classes, row, strict=True) if p >= 0.5)
    return (head.classes[int(row.argmax())],)


def ticked(head: Head, probabilities: ArrayLike) -> tuple[str, ...]:
    """The answer as the screen shows it: of a required multiple head at least the likeliest class."""
    labels = to_labels(head, probabilities)
    return labels if labels or not head.required else (head.classes[int(np.asarray(probabilities).argmax())],)


def confidence_in(head: Head, probabilities: ArrayLike, labels: tuple[str, ...]) -> float:
    """How probable the model holds an answer, in [0, 1].

    The mean probability of its classes: of the one class, or, for a multiple head, the expected share of its ticks
    that are right. Nothing ticked: 1 minus the likeliest class. Raises ValueError for a class the head has not.
    """
    row = _probabilities(head, probabilities)
    if not labels:
        return float(1 - row.max())
    for label in labels:
        _check_class(head, label)
    return float(row[[head.classes.index(label) for label in labels]].mean())


def _probabilities(head: Head, probabilities: ArrayLike) -> NDArray[np.float64]:
    row = np.asarray(probabilities, dtype=np.float64)
    if row.shape != (len(head.classes),):
        raise ValueError(f"{head.name!r} has {len(head.classes)} classes, but probabilities of {row.shape}.")
    # float32 softmax and averaging may exceed 1 by a rounding error.
    if not (np.isfinite(row).all() and row.min() >= 0 and row.max() <= 1 + 1e-5):
        raise ValueError(f"{head.name!r} has probabilities outside [0, 1]: {row.tolist()}.")
    return np.minimum(row, 1.0)


def _check_class(head: Head, label: str) -> None:
    if label not in head.classes:
        raise ValueError(f"{label!r} is no class of {head.name!r} ({', '.join(head.classes)}).")


def _answer(head: Head, labels: tuple[str, ...]) -> Result:
    if head.kind == "rating":
        return _result(head.name, head.to_name, "rating", {"rating": int(labels[0])})
    return _result(head.name, head.to_name, "choices", {"choices": list(labels)})


def _result(name: str, to_name: str, result_type: str, value: dict[str, object]) -> Result:
    # Ids need only be unique within one result list; the control's name is, and says what it is for.
    return {"id": name, "from_name": name, "to_name": to_name, "type": result_type, "value": value}
