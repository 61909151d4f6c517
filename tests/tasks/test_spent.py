"""What was spent, beside what the codec takes for reviewed."""

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tasks.mask_codec import Patch, decode_masks, encode_masks
from tasks.schema import parse_label_config
from tasks.spent import Spent, spent

LOOK = '<RectangleLabels name="look" toName="image" model_role="look"><Label value="here"/></RectangleLabels>'
SCOPE = """<Choices name="scope" toName="image" model_role="scope">
<Choice value="rectangles" alias="patches"/><Choice value="all" alias="image"/></Choices>"""
SCHEMA = parse_label_config(
    '<View><Image name="image" value="$image"/><BrushLabels name="mask" toName="image"><Label value="a"/></BrushLabels>'
    f"{LOOK}{SCOPE}</View>"
)
HEIGHT, WIDTH = 12, 20


def results(region: bool, rectangles: int, said: str | None) -> list[dict[str, Any]]:
    masks = np.zeros((1, HEIGHT, WIDTH), dtype=bool)
    masks[0, 2:5, 2:5] = region
    patches = [Patch(4 * number, 3, 3, 4) for number in range(rectangles)]
    found = encode_masks(SCHEMA, HEIGHT, WIDTH, {"mask": masks}, {"mask": [1.0]}, patches)
    answer = {"from_name": "scope", "to_name": "image", "type": "choices", "value": {"choices": [said]}}
    return found if said is None else [*found, answer]


@given(st.booleans(), st.integers(0, 4), st.sampled_from([None, "patches", "image", "nonsense"]))
def test_what_is_spent_is_what_counts_as_reviewed(region: bool, rectangles: int, said: str | None) -> None:
    result = results(region, rectangles, said)
    reviewed = decode_masks(SCHEMA, result, HEIGHT, WIDTH).reviewed
    found = spent(SCHEMA, result)
    if found.images:
        assert found == Spent(0, 1)
    if said == "nonsense" and not region and not rectangles:
        return  # an answer that nobody can read
    assert reviewed.all() == bool(found.images)
    assert reviewed.any() == (found != Spent(0, 0))
    assert found.images or reviewed.sum() == 12 * found.patches


def test_our_rectangles_left_as_they_came_are_no_review() -> None:
    shown = [result | {"origin": "prediction"} for result in results(False, 3, None)]
    assert spent(SCHEMA, shown) == Spent(0, 0)
    assert spent(SCHEMA, [*shown, *results(True, 0, None)]) == Spent(3, 0)
    assert spent(SCHEMA, "no list") == spent(SCHEMA, [None, {}]) == Spent(0, 0)
