"""The text above the answers: the label on record, what the model says, and why this task comes now."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Literal

from numpy.typing import ArrayLike

from tasks.codec import confidence_in, ticked
from tasks.schema import Head, Labels, Schema

Slot = Literal["ranked", "control", "blind", "holdout", "abstain"]
"""How a task came into the queue. blind, holdout and abstain are shown without anything the model says."""

Reason = Literal["disagreement", "record", "uncertainty", "diversity", "acquisition", "random", "asked"]
"""Which part of the score brought a task forward; `record`: the other labels on record speak against one that the image
does not contradict, `acquisition`: a function of the project's own, `random`: the control arm, `asked`: outside the
queue."""

Case = tuple[int, Labels]
"""A reviewed task, by its number, with its labels."""


class PhrasesError(ValueError):
    """A phrases file cannot be used; the message names the file and the phrase."""


@dataclass(frozen=True)
class Phrases:
    """The sentences, each with the {names} that en.toml has in it."""

    recorded: str
    recorded_label: str
    model: str
    model_label: str
    also: str
    also_label: str
    rest: str
    rest_label: str
    why_now: str
    most_like: str
    similar_case: str
    similar_cases: str
    without_suggestion: str
    drawn: str
    nothing_drawn: str
    least_sure: str
    enough: str
    named_label: str
    between_labels: str
    several: str
    nothing_ticked: str
    percent: str
    less_than: str
    more_than: str
    disagreement: str
    record: str
    uncertainty: str
    diversity: str
    acquisition: str
    random: str
    asked: str


def load_phrases(path: Path | None = None) -> Phrases:
    """Phrases from a TOML file; without a path, the English ones.

    Raises PhrasesError where the file is missing or no TOML, lacks a phrase, has one too many, or where a phrase uses
    a {name} that the English one has not.
    """
    english = tomllib.loads((files("tasks") / "phrases" / "en.toml").read_text(encoding="utf-8"))
    if path is None:
        return Phrases(**english)
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PhrasesError(f"The phrases file {path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PhrasesError(f"The phrases file {path} is not valid TOML: {error}.") from error
    names = [field.name for field in fields(Phrases)]
    for name in names:
        if not isinstance(found.get(name), str):
            raise PhrasesError(f"The phrases file {path} lacks the text {name!r}. In English it is {english[name]!r}.")
        _check_names(path, name, found[name], english[name])
    for name in found:
        if name not in names:
            raise PhrasesError(f"The phrases file {path} has the unknown text {name!r}: remove it.")
    return Phrases(**found)


def why(
    schema: Schema,
    probabilities: Mapping[str, ArrayLike],
    recorded: Labels,
    slot: Slot,
    reason: Reason,
    nearest: Sequence[Case],
    phrases: Phrases,
) -> str:
    """One task's text, whose lines Label Studio breaks as they are here, the most important first:

        Recorded: benign (model 6 %). Model: malignant 91 %.
        Why now: they disagree. Also differ: foci none → rim 70 %.
        Most like: task 812 malignant, 640 malignant, 77 benign.
        Rest as ticked: margin 80 %.

    probabilities: per head (C,). recorded: the labels to be checked. nearest: the reviewed tasks most like this one,
    first first. Every head where model and record differ is named, the first with what the model gives the record;
    where none differs, the heaviest. Of the rest the ticked answer is the record's too, or there is none on record:
    their confidence alone is given. Without a suggestion (by slot, or as there are no probabilities) the text
    follows from the record alone, so that not even the choice of the head betrays the model. Raises ValueError for
    probabilities that do not fit their head.
    """
    heads = sorted(schema.heads, key=lambda head: -head.weight)
    differing = _differing(heads, probabilities, recorded)
    predicted = {head.name: ticked(head, probabilities[head.name]) for head in heads if head.name in probabilities}
    named = next((head for head in [*differing, *heads] if head.name in predicted), None)
    if slot in ("blind", "holdout", "abstain") or named is None:
        known = [_label(head, recorded[head.name], heads[0], phrases) for head in heads if head.name in recorded]
        return " ".join([*(phrases.recorded.format(labels=label) for label in known[:1]), phrases.without_suggestion])

    def sure(head: Head) -> str:
        return _percent(confidence_in(head, probabilities[head.name], predicted[head.name]), phrases)

    on_record = []
    if named.name in recorded:
        given = _percent(confidence_in(named, probabilities[named.name], recorded[named.name]), phrases)
        label = _label(named, recorded[named.name], heads[0], phrases)
        on_record = [phrases.recorded_label.format(label=label, percent=given)]
    answer = _label(named, predicted[named.name], heads[0], phrases)
    by_model = [phrases.model_label.format(label=answer, percent=sure(named))]
    also = [
        phrases.also_label.format(
            control=head.name,
            label=_names(head, recorded[head.name], phrases),
            model=_names(head, predicted[head.name], phrases),
            percent=sure(head),
        )
        for head in differing[1:]
    ]
    rest = [
        phrases.rest_label.format(control=head.name, percent=sure(head))
        for head in schema.heads
        if head.name in predicted and head is not named and head not in differing
    ]
    cases = [
        phrases.similar_case.format(task=task, label=case_label(named, tuple(labels[named.name]), phrases))
        for task, labels in nearest
        if named.name in labels
    ]
    reason = "random" if slot == "control" else reason
    lines: list[list[tuple[str, list[str]]]] = [
        [(phrases.recorded, on_record), (phrases.model, by_model)],
        [(phrases.why_now, [getattr(phrases, reason)]), (phrases.also, also)],
        [(phrases.most_like, cases)],
        [(phrases.rest, rest)],
    ]
    told = (
        " ".join(
            sentence.format(labels=listed, reason=listed, cases=listed)
            for sentence, items in line
            if items and (listed := phrases.between_labels.join(items))
        )
        for line in lines
    )
    return "\n".join(line for line in told if line)


def case_label(head: Head, labels: tuple[str, ...], phrases: Phrases) -> str:
    """A reviewed case's label as the annotator reads it, with its control only where it is a grade such as "4"."""
    return _label(head, labels, head, phrases)


def _differing(heads: list[Head], probabilities: Mapping[str, ArrayLike], recorded: Labels) -> list[Head]:
    """Heads where model and record differ, by weight and then by how improbable the record is."""
    predicted = [head for head in heads if head.name in probabilities]
    doubt = {
        head.name: 1 - confidence_in(head, probabilities[head.name], recorded[head.name])
        for head in predicted
        if head.name in recorded and set(recorded[head.name]) != set(ticked(head, probabilities[head.name]))
    }
    found = [head for head in predicted if head.name in doubt]
    return sorted(found, key=lambda head: (-head.weight, -doubt[head.name]))


def _label(head: Head, labels: tuple[str, ...], heaviest: Head, phrases: Phrases) -> str:
    """Classes as the annotator reads them, with the control's name where they do not speak for themselves: those of
    any but the heaviest head, and grades such as "4"."""
    text = _names(head, labels, phrases)
    if head is heaviest and not any(name[:1].isdigit() for name in head.shown or head.classes):
        return text
    return phrases.named_label.format(control=head.name, label=text)


def _names(head: Head, labels: tuple[str, ...], phrases: Phrases) -> str:
    shown = dict(zip(head.classes, head.shown or head.classes, strict=True))
    return phrases.several.join(shown.get(label, label) for label in labels) or phrases.nothing_ticked


def _percent(probability: float, phrases: Phrases) -> str:
    """Whole percents; never 0 or 100, as no model is certain."""
    number = round(100 * probability)
    text = str(number)
    if number < 1:
        text = phrases.less_than.format(number=1)
    elif number > 99:
        text = phrases.more_than.format(number=99)
    return phrases.percent.format(number=text)


def _check_names(path: Path, name: str, text: str, english: str) -> None:
    known = ("labels", "label", "model", "percent", "reason", "task", "cases", "control", "number")
    allowed = {field: "" for field in known if f"{{{field}}}" in english}
    try:
        text.format(**allowed)
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        listed = ", ".join(f"{{{field}}}" for field in allowed) or "none"
        raise PhrasesError(
            f"The phrases file {path} has a wrong {{name}} in the text {name!r} ({text!r}); those it may use: {listed}."
        ) from error
