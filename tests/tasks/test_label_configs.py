"""The label configs that are shipped, against Label Studio's own reading of them and the data they are written for."""

import csv
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from label_studio_sdk.label_interface import LabelInterface

from tasks.codec import decode_current, encode_prediction
from tasks.schema import parse_label_config

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
EXAMPLES = ("thyroid-similar", "ddti", "busbra")
CONFIGS = [ROOT / "label_config.xml", *(ROOT / f"docs/examples/{name}.xml" for name in EXAMPLES)]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_config_is_valid_and_everything_in_it_is_used(path):
    xml = path.read_text()
    LabelInterface(xml).validate()
    schema = parse_label_config(xml)
    assert schema.left_alone == ()
    assert set(schema.roles) == {"why", "flag"} | ({"similar"} if path.stem == "thyroid-similar" else set())
    assert len(schema.roles["flag"].classes) == 1
    assert all(head.required and head.current for head in schema.heads)
    assert schema.group_field == "patient"
    given = [float(weight) for weight in re.findall(r'model_weight="([^"]+)"', xml)]
    assert sum(given) == pytest.approx(1)
    assert [head.weight for head in schema.heads] == pytest.approx(given)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_predictions_for_it_are_accepted_by_label_studio(path):
    xml = path.read_text()
    schema = parse_label_config(xml)
    uniform = {head.name: np.full(len(head.classes), 1 / len(head.classes)) for head in schema.heads}
    result = encode_prediction(schema, uniform, "Why.")
    assert len(result) == len(schema.heads) + 1
    prediction = {"result": result, "score": 0.1, "model_version": "v1"}
    assert LabelInterface(xml).validate_prediction(prediction, return_errors=True) == []


def test_the_example_with_similar_cases_is_the_shipped_config_and_a_place_for_them():
    shipped, example = (CONFIGS[index].read_text().splitlines() for index in (0, 1))
    assert [line for line in example if line in set(shipped)] == shipped
    added = [line.strip() for line in example if line not in set(shipped)]
    assert [line for line in added if line.startswith("<") and not line.startswith("<!--")] == [
        '<HyperText name="similar" value="$similar" model_role="similar" inline="true"/>'
    ]
    assert parse_label_config(CONFIGS[1].read_text()).roles["similar"].field == "similar"


def test_thyroid_controls_are_those_of_the_phantoms():
    heads = {head.name: head for head in parse_label_config(CONFIGS[0].read_text()).heads}
    assert {name: head.weight for name, head in heads.items()} == pytest.approx(
        {"bom": 0.9, "tirads": 0.05} | dict.fromkeys(["composition", "echogenicity", "shape", "margin", "foci"], 0.01)
    )
    assert {name: head.current for name, head in heads.items()} == {name: name for name in heads}
    assert heads["bom"].positive == "malignant"
    assert [name for name, head in heads.items() if head.ordinal] == ["tirads"]
    assert [name for name, head in heads.items() if head.multiple] == ["foci"]
    assert heads["tirads"].classes == ("TR1", "TR2", "TR3", "TR4", "TR5")
    assert heads["echogenicity"].classes == (
        "anechoic",
        "iso or hyperechoic",
        "hypoechoic",
        "very hypoechoic",
    )
    assert heads["foci"].classes == ("none", "macrocalcifications", "peripheral", "punctate")


@pytest.mark.parametrize("name", ["ddti", "busbra"])
def test_every_label_of_the_data_is_a_class(name):
    labels = DATA / name / "labels.csv"
    if not labels.exists():
        pytest.skip(f"{name} is not beside this checkout")
    schema = parse_label_config((ROOT / f"docs/examples/{name}.xml").read_text())
    with labels.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {schema.group_field, schema.site_field} <= set(rows[0])
    found: Counter[tuple[str, str]] = Counter()
    for row in rows:
        current, problems = decode_current(schema, row)
        assert problems == ()
        assert set(current) == {head.name for head in schema.heads if row[head.current]}
        found.update((head, classes[0]) for head, classes in current.items())
    assert set(found) == {(head.name, label) for head in schema.heads for label in head.classes}
