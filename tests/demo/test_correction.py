"""What the oracle of masks submits, read back as the loop reads it, beside a painting by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from demo.correction import known_masks, marked
from demo.oracle import annotated
from tasks import datafolder
from tasks.mask_codec import Patch, decode_masks, encode_masks
from tasks.schema import parse_label_config

EXAMPLE = (Path(__file__).parents[2] / "docs" / "examples" / "nuclei.xml").read_text()
SCHEMA = parse_label_config(EXAMPLE)
HEIGHT, WIDTH = 40, 60
PATCHES = (Patch(0, 0, 20, 20, 0.9), Patch(40, 10, 20, 20, 0.5))


def blob(top: int, left: int) -> np.ndarray:
    mask = np.zeros((1, HEIGHT, WIDTH), dtype=bool)
    mask[0, top : top + 16, left : left + 24] = True
    return mask


def shown(mask: np.ndarray, patches: tuple[Patch, ...] = PATCHES) -> list[dict[str, Any]]:
    return encode_masks(SCHEMA, HEIGHT, WIDTH, {"mask": mask}, {"mask": [0.8]}, patches)


def test_only_what_lies_in_the_rectangles_is_corrected() -> None:
    drawn, truth = blob(5, 5), blob(12, 30)
    result = marked(SCHEMA, shown(drawn), {"mask": truth})
    said = decode_masks(SCHEMA, result, HEIGHT, WIDTH)
    assert said.problems == ()
    inside = np.zeros((HEIGHT, WIDTH), dtype=bool)
    inside[0:20, 0:20] = inside[10:30, 40:60] = True
    np.testing.assert_array_equal(said.reviewed, inside)
    np.testing.assert_array_equal(said.masks["mask"][0], np.where(inside, truth[0], drawn[0]))
    origins = {(region["from_name"], region["origin"]) for region in result}
    assert origins == {("mask", "prediction-changed"), ("look", "prediction"), ("scope", "manual")}


def test_a_mask_that_is_right_is_submitted_as_it_came() -> None:
    before = shown(blob(5, 5))
    result = marked(SCHEMA, before, {"mask": blob(5, 5)})
    assert [region for region in result if region["from_name"] == "mask"] == [before[0] | {"origin": "prediction"}]


@pytest.mark.parametrize("suggestion", [[], shown(blob(5, 5), ())], ids=["blind", "without rectangles"])
def test_without_a_rectangle_the_whole_mask_is_drawn(suggestion: list[dict[str, Any]]) -> None:
    result = marked(SCHEMA, suggestion, {"mask": blob(12, 30)})
    said = decode_masks(SCHEMA, result, HEIGHT, WIDTH)
    assert said.problems == () and said.reviewed.all()
    np.testing.assert_array_equal(said.masks["mask"], blob(12, 30))


def test_what_was_drawn_where_nothing_is_goes() -> None:
    result = marked(SCHEMA, shown(blob(2, 2), (Patch(0, 0, WIDTH, HEIGHT, 0.9),)), {"mask": np.zeros_like(blob(0, 0))})
    assert [region["from_name"] for region in result] == ["look", "scope"]


def test_every_rectangle_of_a_prediction_is_submitted_once() -> None:
    prediction = {"result": shown(blob(5, 5))}
    result = annotated(SCHEMA, prediction, {}, {"mask": blob(5, 5)})
    assert [region["id"] for region in result][:3] == ["mask-0-0", "look-0", "look-1"]
    assert len(result) == 4
    untouched = annotated(SCHEMA, prediction, {})
    assert untouched == [region | {"origin": "prediction"} for region in prediction["result"]]


def test_the_true_mask_goes_before_the_one_on_record(tmp_path: Path) -> None:
    for name, mask in (("record", blob(0, 0)), ("truth", blob(9, 9))):
        Image.fromarray(mask[0]).save(tmp_path / f"{name}.png")
    for number in range(3):
        Image.new("L", (WIDTH, HEIGHT)).save(tmp_path / f"{number}.png")
    lines = ["file,mask,true_mask", "0.png,record.png,truth.png", "1.png,record.png,", "2.png,,"]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    truth = known_masks(datafolder.read(tmp_path, SCHEMA))
    np.testing.assert_array_equal(truth("0.png")["mask"], blob(9, 9))
    np.testing.assert_array_equal(truth("1.png")["mask"], blob(0, 0))
    assert truth("2.png") == {} == truth("elsewhere.png")
