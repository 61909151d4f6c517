"""The text above the answers."""

from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.codec import to_labels
from tasks.schema import parse_label_config
from tasks.why import PhrasesError, load_phrases, why

SCHEMA = parse_label_config(
    """<View><Image name="image" value="$image"/>
    <Choices name="margin" toName="image" model_weight="0.05"><Choice value="smooth"/><Choice value="irregular"/>
    </Choices>
    <Choices name="bom" toName="image" model_weight="0.9"><Choice value="benign"/>
    <Choice value="malignant" alias="m"/></Choices>
    <Choices name="foci" toName="image" choice="multiple" model_weight="0.05"><Choice value="rim"/>
    <Choice value="punctate"/></Choices></View>"""
)
PHRASES = load_phrases()
PROBABILITIES = {"bom": [0.06, 0.94], "margin": [0.8, 0.2], "foci": [0.9, 0.7]}
ENGLISH = (files("tasks") / "phrases" / "en.toml").read_text(encoding="utf-8")


def text(recorded, slot="ranked", reason="disagreement", nearest=(), probabilities=PROBABILITIES, schema=SCHEMA):
    return why(schema, probabilities, recorded, slot, reason, nearest, PHRASES)


def test_the_sentence_of_the_design():
    nearest = [(812, {"bom": ["m"]}), (640, {"bom": ("m",), "foci": ()}), (77, {"bom": ("benign",)})]
    said = text({"bom": ("benign",)}, nearest=nearest, probabilities={"bom": [0.06, 0.94]})
    assert said == (
        "Recorded: benign (model 6 %). Model: malignant 94 %.\n"
        "Why now: they disagree.\n"
        "Most like: task 812 malignant, 640 malignant, 77 benign."
    )
    assert text({"bom": ("benign",)}, nearest=nearest) == f"{said}\nRest as ticked: margin 80 %, foci 80 %."


def test_heads_that_differ_come_first_the_heaviest_of_them_leading():
    assert text({"bom": ("m",), "margin": ("irregular",)}) == (
        "Recorded: margin “irregular” (model 20 %). Model: margin “smooth” 80 %.\n"
        "Why now: they disagree.\n"
        "Rest as ticked: bom 94 %, foci 80 %."
    )
    both = text({"bom": ("benign",), "margin": ("irregular",), "foci": ()})
    assert both == (
        "Recorded: benign (model 6 %). Model: malignant 94 %.\n"
        "Why now: they disagree. "
        "Also differ: foci nothing ticked → rim + punctate 80 %, margin irregular → smooth 80 %."
    )


def test_the_text_speaks_of_the_answer_that_is_ticked():
    schema = parse_label_config(
        """<View><Image name="image" value="$image"/><Choices name="foci" toName="image" choice="multiple"
        required="true"><Choice value="rim"/><Choice value="punctate"/></Choices></View>"""
    )
    said = text({"foci": ("rim",)}, probabilities={"foci": [0.1, 0.4]}, schema=schema)
    assert said.startswith("Recorded: rim (model 10 %). Model: punctate 40 %.")


def test_without_a_label_on_record_the_model_speaks_alone():
    others = "\nRest as ticked: margin 80 %, foci 80 %."
    assert text({}, reason="uncertainty") == "Model: malignant 94 %.\nWhy now: the model is unsure." + others
    assert text({"bom": ("m",)}, reason="diversity") == (
        "Recorded: malignant (model 94 %). Model: malignant 94 %.\nWhy now: unlike anything reviewed." + others
    )


@given(st.lists(st.floats(0, 1), min_size=4, max_size=4), st.integers(0, 1), st.integers(0, 1))
def test_every_control_the_model_answers_is_told_of_once(chances, bom, margin):
    probabilities = {"bom": [1 - chances[0], chances[0]], "margin": [1 - chances[1], chances[1]], "foci": chances[2:]}
    recorded = {"bom": (("benign", "m")[bom],), "margin": (("smooth", "irregular")[margin],), "foci": ("rim",)}
    said = text(recorded, probabilities=probabilities)
    by_model = said[said.index("Model:") :]
    for head in SCHEMA.heads:
        name = "malignant" if probabilities["bom"][1] > 0.5 else "benign"
        told = by_model.count(f"{head.name} ") or by_model.count(name)
        assert told == 1
        if set(recorded[head.name]) != set(to_labels(head, probabilities[head.name])):
            on_record = {"bom": ("benign", "malignant")[bom], "margin": recorded["margin"][0], "foci": "rim"}[head.name]
            assert on_record in said.split("Rest as ticked")[0]


def test_the_control_arm_is_a_random_check_whatever_scored():
    assert "Why now: random check." in text({}, slot="control", reason="uncertainty")


@pytest.mark.parametrize("slot", ["blind", "holdout", "abstain"])
def test_blind_text_is_the_same_whatever_the_model_says(slot):
    recorded = {"bom": ("benign",), "margin": ("irregular",)}
    opposite = {"bom": [1, 0], "margin": [0, 1], "foci": [0, 0]}
    expected = "Recorded: benign. Shown without a suggestion: please judge on your own."
    assert text(recorded, slot, nearest=[(812, {"bom": ("m",)})]) == expected
    assert text(recorded, slot, reason="diversity", probabilities=opposite) == expected
    assert text(recorded, slot, probabilities={}) == expected


def test_without_record_or_probabilities_only_the_request_is_left():
    assert text({}, probabilities={}) == PHRASES.without_suggestion
    assert text({"margin": ("smooth",)}, "blind").startswith("Recorded: margin “smooth”. Shown without")


def test_nearest_task_without_a_label_for_that_head_is_left_out():
    assert "Most like" not in text({}, nearest=[(812, {"margin": ("smooth",)})])
    assert "Most like: task 77 benign." in text(
        {}, nearest=[(812, {"margin": ("smooth",)}), (77, {"bom": ("benign",)})]
    )


@pytest.mark.parametrize(("p", "shown"), [(0.999, ">99 %"), (0.994, "99 %"), (0.51, "51 %")])
def test_no_model_is_certain(p, shown):
    assert f"malignant {shown}" in text({}, probabilities={"bom": [1 - p, p]})


def test_an_impossible_record_is_under_one_percent():
    assert "benign (model <1 %)" in text({"bom": ("benign",)}, probabilities={"bom": [0.001, 0.999]})


def test_grades_are_shown_with_their_control():
    graded = parse_label_config(
        '<View><Image name="i" value="$i"/><Rating name="quality" toName="i" maxRating="2"/></View>'
    )
    assert text({}, probabilities={"quality": [0.3, 0.7]}, schema=graded).startswith("Model: quality “2” 70 %.")


def test_another_language(tmp_path):
    path = tmp_path / "de.toml"
    path.write_text(ENGLISH.replace("Recorded: {labels}.", "Eingetragen: {labels}."), encoding="utf-8")
    german = load_phrases(path)
    said = why(SCHEMA, PROBABILITIES, {"bom": ("benign",)}, "ranked", "disagreement", (), german)
    assert said.startswith("Eingetragen: benign")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda toml: toml.replace("most_like =", "nearest ="), "lacks the text 'most_like'"),
        (lambda toml: toml.replace('random = "random check"', "random = 3"), "lacks the text 'random'"),
        (lambda toml: toml + 'extra = "x"', "unknown text 'extra'"),
        (lambda toml: toml.replace("{reason}", "{cause}"), "wrong {name} in the text 'why_now'"),
        (lambda toml: toml.replace("{reason}", "{}"), "may use: {reason}"),
        (lambda toml: toml.replace("{reason}", "{reason"), "wrong {name}"),
        (lambda toml: toml + "[", "not valid TOML"),
    ],
)
def test_a_wrong_phrases_file_is_refused_in_words(tmp_path, change, says):
    path = tmp_path / "xx.toml"
    path.write_text(change(ENGLISH), encoding="utf-8")
    with pytest.raises(PhrasesError) as caught:
        load_phrases(path)
    assert says in str(caught.value)
    assert "xx.toml" in str(caught.value)


def test_a_missing_phrases_file_is_named():
    with pytest.raises(PhrasesError, match=r"nowhere\.toml cannot be read"):
        load_phrases(Path("nowhere.toml"))
