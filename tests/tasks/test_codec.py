"""Label Studio JSON to labels and back, beside Label Studio's own validation."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_studio_sdk.label_interface import LabelInterface

from tasks.codec import (
    confidence_in,
    decode_current,
    decode_result,
    encode_labels,
    encode_prediction,
    encode_why,
    to_labels,
    to_targets,
)
from tasks.schema import parse_label_config

CONFIG = """<View><Image name="image" value="$image"/>
<Choices name="bom" toName="image" required="true" model_current="$bom">
  <Choice value="benign"/><Choice value="malignant" alias="m"/></Choices>
<Choices name="foci" toName="image" choice="multiple" model_current="$foci">
  <Choice value="none"/><Choice value="rim"/><Choice value="punctate"/></Choices>
<Choices name="must" toName="image" choice="multiple" required="true">
  <Choice value="left"/><Choice value="right"/></Choices>
<Rating name="quality" toName="image" maxRating="4" model_current="$quality"/>
<BrushLabels name="mask" toName="image"><Label value="nodule"/></BrushLabels>
<Choices name="flag" toName="image" model_role="flag"><Choice value="expert"/></Choices>
<Rating name="sure" toName="image" maxRating="5" model_role="confidence"/>
<TextArea name="remark" toName="image" model_role="note"/>
<TextArea name="why" toName="image" model_role="why" editable="false" maxSubmissions="1"/></View>"""
SCHEMA = parse_label_config(CONFIG)
HEADS = {head.name: head for head in SCHEMA.heads}
ORACLE = LabelInterface(CONFIG)

# What an annotator can answer; "must" cannot be left empty, "bom" is always there so that an answer exists.
ANSWERS = st.fixed_dictionaries(
    {
        "bom": st.sampled_from([("benign",), ("m",)]),
        "foci": st.sets(st.sampled_from(HEADS["foci"].classes)).map(
            lambda ticked: tuple(name for name in HEADS["foci"].classes if name in ticked)
        ),
    },
    optional={
        "must": st.sampled_from([("left",), ("right",), ("left", "right")]),
        "quality": st.sampled_from([("1",), ("2",), ("3",), ("4",)]),
    },
)


def simplex(size):
    return st.lists(st.floats(0.01, 1), min_size=size, max_size=size).map(lambda p: np.array(p) / sum(p))


def independent(size):
    return st.lists(st.floats(0, 1), min_size=size, max_size=size).map(np.array)


PROBABILITIES = st.fixed_dictionaries(
    {"bom": simplex(2)}, optional={"foci": independent(3), "must": independent(2), "quality": simplex(4)}
)


def result(name, value, kind="choices"):
    return {"from_name": name, "to_name": "image", "type": kind, "value": value}


def choices(name, *ticked):
    return result(name, {"choices": list(ticked)})


@given(ANSWERS)
def test_what_an_annotator_submits_is_read_back(labels):
    submitted = encode_labels(SCHEMA, labels)
    decoded = decode_result(SCHEMA, json.loads(json.dumps(submitted)))
    assert decoded.labels == labels
    assert decoded.problems == ()
    assert ORACLE.validate_annotation({"result": submitted})


@given(PROBABILITIES)
def test_a_prediction_is_what_label_studio_accepts_and_says_the_likeliest_answer(probabilities):
    encoded = encode_prediction(SCHEMA, probabilities, "They disagree.")
    prediction = {"result": encoded, "score": 0.000001, "model_version": "v1-queue-order"}
    assert ORACLE.validate_prediction(prediction, return_errors=True) == []
    assert len({item["id"] for item in encoded}) == len(encoded)
    assert encoded == encode_prediction(SCHEMA, probabilities, "They disagree.")

    decoded = decode_result(SCHEMA, json.loads(json.dumps(encoded)))
    assert (decoded.shown, decoded.problems) == ("They disagree.", ())
    scores = {item["from_name"]: item["score"] for item in encoded if "score" in item}
    for name, row in probabilities.items():
        head = HEADS[name]
        if not head.multiple:
            assert decoded.labels[name] == (head.classes[row.argmax()],)
            assert scores[name] == pytest.approx(row.max(), abs=1e-4)
            continue
        ticked = tuple(name for name, p in zip(head.classes, row, strict=True) if p >= 0.5)
        if not ticked and head.required:
            ticked = (head.classes[row.argmax()],)
        assert decoded.labels[name] == ticked
        if ticked:
            mean = np.mean([row[head.classes.index(label)] for label in ticked])
            assert scores[name] == pytest.approx(mean, abs=1e-4)
        else:
            assert name not in scores


def test_blind_tasks_carry_the_text_alone():
    (item,) = encode_why(SCHEMA, "Please judge on your own.")
    assert item == {
        "id": "why",
        "from_name": "why",
        "to_name": "image",
        "type": "textarea",
        "value": {"text": ["Please judge on your own."]},
    }
    without = parse_label_config(CONFIG.replace('model_role="why"', ""))
    assert encode_why(without, "Please judge on your own.") == []
    assert encode_why(SCHEMA, "") == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "rating", "text", "number", "value", "from_name", "type"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
ODD_RESULT = st.fixed_dictionaries(
    {},
    optional={
        "from_name": st.sampled_from([*HEADS, "mask", "flag", "sure", "remark", "why", "gone"]) | JSON,
        "value": st.fixed_dictionaries({}, optional={"choices": JSON, "rating": JSON, "text": JSON, "number": JSON})
        | JSON,
        "type": JSON,
    },
)


@given(JSON | st.lists(ODD_RESULT | JSON, max_size=5))
def test_odd_json_never_raises(odd):
    decoded = decode_result(SCHEMA, odd)
    for name, labels in decoded.labels.items():
        assert set(labels) <= set(HEADS[name].classes)
        assert HEADS[name].multiple or len(labels) == 1
    assert decoded.confidence is None or 0 <= decoded.confidence <= 1


@given(st.dictionaries(st.sampled_from(["bom", "foci", "quality"]), JSON))
def test_odd_task_data_never_raises(data):
    labels, _ = decode_current(SCHEMA, data)
    for name, found in labels.items():
        assert set(found) <= set(HEADS[name].classes)


def test_later_results_replace_and_those_of_multiple_heads_add_up():
    decoded = decode_result(
        SCHEMA,
        [choices("bom", "benign"), choices("foci", "punctate"), choices("bom", "m"), choices("foci", "rim")],
    )
    assert decoded.labels == {"bom": ("m",), "foci": ("rim", "punctate")}


def test_nothing_ticked_is_an_answer_only_where_something_else_was_answered():
    assert decode_result(SCHEMA, [choices("bom", "m")]).labels == {"bom": ("m",), "foci": ()}
    assert decode_result(SCHEMA, []).labels == {}
    assert decode_result(SCHEMA, encode_why(SCHEMA, "Shown.")).labels == {}
    assert decode_result(SCHEMA, [choices("foci")]).labels == {}
    assert decode_result(SCHEMA, [choices("flag", "expert")]).labels == {"foci": ()}
    brushed = [result("mask", {"format": "rle", "rle": []}, "brushlabels"), choices("bom")]
    assert decode_result(SCHEMA, brushed).labels == {"foci": ()}


@pytest.mark.parametrize(
    ("item", "says"),
    [
        (choices("bom", "cancer"), "'cancer' is no class of 'bom' (benign, m)"),
        (choices("foci", "rim", "halo"), "'halo' is no class of 'foci'"),
        (choices("bom", "benign", "m"), "takes one choice"),
        (result("bom", {"labels": ["m"]}), "no list of choices"),
        (result("quality", {"rating": 9}, "rating"), "outside 1 to 4"),
        (result("quality", {"rating": True}, "rating"), "no rating"),
        (result("gone", {"choices": ["m"]}), "'gone', which is no control"),
        (result("sure", {"rating": 9}, "rating"), "'sure' is no confidence"),
        ({"value": {}}, "names no control"),
        ("text", "not an object"),
    ],
)
def test_what_cannot_be_read_is_a_problem_and_its_label_is_missing(item, says):
    decoded = decode_result(SCHEMA, [item, choices("must", "left")])
    (problem,) = decoded.problems
    assert says in problem
    broken = item["from_name"] if isinstance(item, dict) and "from_name" in item else None
    expected = {"must": ("left",), "foci": ()}
    assert decoded.labels == {name: labels for name, labels in expected.items() if name != broken}


def test_controls_left_alone_and_relations_are_no_problem():
    relation = {"type": "relation", "from_id": "a", "to_id": "b", "direction": "right"}
    region = result("mask", {"rle": [1], "brushlabels": ["nodule"]}, "brushlabels")
    assert decode_result(SCHEMA, [relation, region, choices("bom", "m")]).problems == ()


def test_roles_are_read_apart():
    decoded = decode_result(
        SCHEMA,
        [
            choices("flag", "expert"),
            result("sure", {"rating": 4}, "rating"),
            result("remark", {"text": ["first", "second"]}, "textarea"),
            result("why", {"text": "Recorded: benign."}, "textarea"),
        ],
    )
    assert (decoded.flagged, decoded.confidence) == (True, 0.75)
    assert (decoded.note, decoded.shown, decoded.problems) == ("first\nsecond", "Recorded: benign.", ())
    assert not decode_result(SCHEMA, [choices("flag")]).flagged


@pytest.mark.parametrize(
    ("tag", "value", "expected"),
    [
        ('<Number name="c" toName="image" model_role="confidence"/>', {"number": 0.3}, 0.3),
        ('<Number name="c" toName="image" model_role="confidence"/>', {"number": 30}, None),
        (
            '<Choices name="c" toName="image" model_role="confidence"><Choice value="low"/><Choice value="middle"/>'
            '<Choice value="high"/></Choices>',
            {"choices": ["middle"]},
            0.5,
        ),
    ],
)
def test_confidence_of_other_controls(tag, value, expected):
    schema = parse_label_config(
        f'<View><Image name="image" value="$image"/><Rating name="r" toName="image"/>{tag}</View>'
    )
    decoded = decode_result(schema, [result("c", value)])
    assert decoded.confidence == expected
    assert len(decoded.problems) == (expected is None)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"bom": "m"}, {"bom": ("m",)}),
        ({"bom": " malignant "}, {"bom": ("m",)}),
        ({"bom": ["benign"]}, {"bom": ("benign",)}),
        ({"bom": "", "foci": None, "quality": float("nan")}, {}),
        ({}, {}),
        ({"quality": 3}, {"quality": ("3",)}),
        ({"quality": 3.0}, {"quality": ("3",)}),
        ({"foci": "punctate| rim"}, {"foci": ("rim", "punctate")}),
        ({"foci": ["punctate", "rim", ""]}, {"foci": ("rim", "punctate")}),
        ({"foci": []}, {"foci": ()}),
        ({"foci": " "}, {}),
    ],
)
def test_labels_on_record(data, expected):
    assert decode_current(SCHEMA, data) == (expected, ())


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"bom": "cancer"}, "Task field 'bom' has 'cancer', no class of 'bom' (benign, m)"),
        ({"bom": ["benign", "m"]}, "has 2 labels, but 'bom' takes one"),
        ({"foci": "rim|halo"}, "'halo'"),
        ({"quality": 2.5}, "'2.5'"),
        ({"foci": {"rim": 1}}, "no class of 'foci'"),
    ],
)
def test_labels_on_record_that_cannot_be_read_are_said(data, says):
    labels, (problem,) = decode_current(SCHEMA, {"quality": "1", **data})
    assert labels == ({} if "quality" in data else {"quality": ("1",)})
    assert says in problem


def test_a_class_with_a_bar_in_its_name_is_one_class():
    schema = parse_label_config(
        '<View><Image name="image" value="$image"/><Choices name="c" toName="image" choice="multiple" '
        'model_current="$c"><Choice value="a|b"/><Choice value="c"/></Choices></View>'
    )
    assert decode_current(schema, {"c": "a|b"}) == ({"c": ("a|b",)}, ())


def test_targets_are_ones_zeros_and_nan_where_missing():
    rows = [{"bom": ("m",), "foci": ("none", "punctate")}, {"foci": ()}, {}]
    targets = to_targets([HEADS["bom"], HEADS["foci"]], rows)
    nan = np.nan
    np.testing.assert_array_equal(targets["bom"], np.array([[0, 1], [nan, nan], [nan, nan]], np.float32))
    np.testing.assert_array_equal(targets["foci"], np.array([[1, 0, 1], [0, 0, 0], [nan, nan, nan]], np.float32))
    assert all(target.dtype == np.float32 for target in targets.values())
    assert to_targets([HEADS["bom"]], [])["bom"].shape == (0, 2)


@given(ANSWERS)
def test_targets_stand_for_the_labels_they_were_made_of(labels):
    targets = to_targets(SCHEMA.heads, [labels])
    for head in SCHEMA.heads:
        if head.name in labels:
            assert to_labels(head, targets[head.name][0]) == labels[head.name]
        else:
            assert np.isnan(targets[head.name]).all()


@pytest.mark.parametrize(
    ("row", "says"),
    [([0.5, 0.5, 0], "2 classes"), ([0.5, np.nan], "outside"), ([1.5, 0], "outside"), ([-0.1, 1.1], "outside")],
)
def test_wrong_probabilities_name_their_head(row, says):
    with pytest.raises(ValueError, match=f"'bom' has .*{says}"):
        encode_prediction(SCHEMA, {"bom": row}, "")


def test_unknown_classes_name_their_head():
    for call in (
        lambda: encode_labels(SCHEMA, {"bom": ("cancer",)}),
        lambda: to_targets(SCHEMA.heads, [{"bom": ("cancer",)}]),
        lambda: confidence_in(HEADS["bom"], [0.5, 0.5], ("cancer",)),
    ):
        with pytest.raises(ValueError, match="'cancer' is no class of 'bom'"):
            call()


def test_confidence_of_nothing_ticked():
    assert confidence_in(HEADS["foci"], [0.1, 0.3, 0.2], ()) == pytest.approx(0.7)
