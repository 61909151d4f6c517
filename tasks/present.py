"""What an annotator is shown of a task: the ticked answers and the text, or only the text where it is shown blind."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from tasks.codec import encode_prediction, encode_why
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
) -> tuple[str, list[dict[str, Any]]]:
    """The text and the prediction's results for one task; arguments as in `why.why`.

    enough: trainings have ended, which the text then says last.
    """
    text = why(schema, probabilities, recorded, slot, reason, nearest, phrases)
    if enough:
        text = f"{text}\n{phrases.enough}"
    if slot in WITHOUT_SUGGESTION or not probabilities:
        return text, encode_why(schema, text)
    return text, encode_prediction(schema, probabilities, text)
