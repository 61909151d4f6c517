"""What an annotator is shown of a task: the ticked answers and the text, or only the text where it is shown blind."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from numpy.typing import ArrayLike

from tasks.codec import Result, encode_prediction, encode_why
from tasks.drawn import why_drawn
from tasks.schema import Labels, Schema
from tasks.why import Case, Phrases, Reason, Slot, load_phrases, why

WITHOUT_SUGGESTION = ("blind", "holdout", "abstain")


def phrases_of(setting: str) -> Phrases:
    """The phrases that the setting names: "en", or the path of a TOML file. Raises PhrasesError."""
    return load_phrases(None if setting == "en" else Path(setting))


def present(
    schema: Schema,
    phrases: Phrases,
    probabilities: Mapping[str, ArrayLike],
    recorded: Labels,
    slot: Slot,
    reason: Reason,
    nearest: Sequence[Case] = (),
    enough: bool = False,
    regions: Sequence[Result] | None = None,
) -> tuple[str, list[Result]]:
    """The text and the prediction's results for one task; arguments as in `why.why`.

    regions: what the model draws, with its rectangles; None where it was not asked. enough: trainings have ended, which
    the text then says last.
    """
    suggested = slot not in WITHOUT_SUGGESTION and (bool(probabilities) or regions is not None)
    if suggested and regions is not None:
        lines = why_drawn(schema, regions, "random" if slot == "control" else reason, phrases, alone=not probabilities)
        told = [why(schema, probabilities, recorded, slot, reason, nearest, phrases)] if probabilities else []
        text = "\n".join([*told, *lines])
    else:
        text = why(schema, probabilities, recorded, slot, reason, nearest, phrases)
    if enough:
        text = f"{text}\n{phrases.enough}"
    if not suggested:
        return text, encode_why(schema, text)
    return text, [*encode_prediction(schema, probabilities, text), *(regions or ())]
