"""The text above the answers: the label on record, what the model says, and why this task comes now."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Literal

from numpy.typing import ArrayLike

from tasks.codec import confidence_in, to_labels
from tasks.schema import Head, Labels, Schema

Slot = Literal["ranked", "control", "blind", "holdout", "abstain"]
"""How a task came into the queue. blind, holdout and abstain are shown without anything the model says."""

Reason = Literal["disagreement", "record", "uncertainty", "diversity", "acquisition", "random", "asked"]
"""Which part of the score brought a task forward; `record`: the other labels on record speak against one that the image
does not contradict, `acquisition`: a function of the project's own, `random`: the control arm, `asked`: outside the
queue."""

# More labels than this do not fit on two lines.
_MOST_HEADS = 2


class PhrasesError(ValueError):
    """A phrases file cannot be used; the message names the file and the phrase."""


@dataclass(frozen=True)
class Phrases:
    """The sentences, each with the {names} that en.toml has in it."""

    recorded: str
    recorded_label: str
    model: str
    model_label: str
    why_now: str
    most_like: str
    without_suggestion: str
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
    nearest: tuple[int, Labels] | None,
    phrases: Phrases,
) -> str:
    """One task's text: "Recorded: benign (model 6 %). Model: malignant 91 %. Why now: they disagree. Most like task
    812, malignant."

    probabilities: per head (C,). recorded: the labels to be checked. nearest: the reviewed task most like this one,
    with its labels. At most two heads are named: those where model and record differ, else the heaviest. Without a
    suggestion (by slot, or as there are no probabilities) the text follows from the record alone, so that not even
    the choice of the head betrays the model. Raises ValueError for probabilities that do not fit their head.
    """
    heads = sorted(schema.heads, key=lambda head: -head.weight)
    named = _heads_to_name(heads, probabilities, recorded)
    if slot in ("blind", "holdout", "abstain") or not named:
        known = [_label(head, recorded[head.name], heads[0], phrases) for head in heads if head.name in recorded]
        sentences = [phrases.recorded.format(labels=known[0])] if known else []
        return " ".join([*sentences, phrases.without_suggestion])

    on_record = [
        phrases.recorded_label.format(
            label=_label(head, recorded[head.name], heads[0], phrases),
            percent=_percent(confidence_in(head, probabilities[head.name], recorded[head.name]), phrases),
        )
        for head in named
        if head.name in recorded
    ]
    predicted = {head.name: to_labels(head, probabilities[head.name]) for head in named}
    by_model = [
        phrases.model_label.format(
            label=_label(head, predicted[head.name], heads[0], phrases),
            percent=_percent(confidence_in(head, probabilities[head.name], predicted[head.name]), phrases),
        )
        for head in named
    ]
    reason = "random" if slot == "control" else reason
    sentences = [
        phrases.model.format(labels=phrases.between_labels.join(by_model)),
        phrases.why_now.format(reason=getattr(phrases, reason)),
    ]
    if on_record:
        sentences.insert(0, phrases.recorded.format(labels=phrases.between_labels.join(on_record)))
    if nearest is not None and named[0].name in nearest[1]:
        label = _label(named[0], nearest[1][named[0].name], heads[0], phrases)
        sentences.append(phrases.most_like.format(task=nearest[0], label=label))
    return " ".join(sentences)


def _heads_to_name(heads: list[Head], probabilities: Mapping[str, ArrayLike], recorded: Labels) -> list[Head]:
    """Heads where model and record differ, by weight and then by how improbable the record is; then the heaviest."""
    predicted = [head for head in heads if head.name in probabilities]
    doubt = {
        head.name: 1 - confidence_in(head, probabilities[head.name], recorded[head.name])
        for head in predicted
        if head.name in recorded and set(recorded[head.name]) != set(to_labels(head, probabilities[head.name]))
    }
    differing = sorted(
        (head for head in predicted if head.name in doubt), key=lambda head: (-head.weight, -doubt[head.name])
    )
    return differing[:_MOST_HEADS] or predicted[:1]


def _label(head: Head, labels: tuple[str, ...], heaviest: Head, phrases: Phrases) -> str:
    """Classes as the annotator reads them, with the control's name where they do not speak for themselves: those of
    any but the heaviest head, and grades such as "4"."""
    shown = dict(zip(head.classes, head.shown or head.classes, strict=True))
    text = phrases.several.join(shown.get(label, label) for label in labels) or phrases.nothing_ticked
    if head is heaviest and not any(name[:1].isdigit() for name in shown.values()):
        return text
    return phrases.named_label.format(control=head.name, label=text)


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
    known = ("labels", "label", "percent", "reason", "task", "control", "number")
    allowed = {field: "" for field in known if f"{{{field}}}" in english}
    try:
        text.format(**allowed)
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        listed = ", ".join(f"{{{field}}}" for field in allowed) or "none"
        raise PhrasesError(
            f"The phrases file {path} has a wrong {{name}} in the text {name!r} ({text!r}); those it may use: {listed}."
        ) from error
