"""Label configs as heads, roles, and what is left alone."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_studio_sdk.label_interface import LabelInterface

from tasks.codec import decode_result
from tasks.schema import ROLES, SchemaError, parse_label_config

IMAGE = '<Image name="image" value="$image"/>'
BOM = '<Choices name="bom" toName="image"{}><Choice value="benign"/><Choice value="malignant"/></Choices>'.format
SCOPE = '<Choices name="s" toName="image" model_role="scope"><Choice value="Some" alias="{}"/></Choices>'
NUCLEI = '<BrushLabels name="nuclei" toName="image"{}><Label value="nucleus" alias="n"/></BrushLabels>'.format
GLANDS = '<PolygonLabels name="glands" toName="image"><Label value="benign"/><Label value="malignant"/></PolygonLabels>'
TIRADS = '<Choices name="tirads" toName="image"{}><Choice value="TR1"/><Choice value="TR2"/></Choices>'.format


def view(*tags: str) -> str:
    return f"<View>{''.join(tags)}</View>"


def test_heads_carry_what_the_controls_say():
    schema = parse_label_config(
        view(
            '<Image name="scan" value="$url" model_group="$patient" model_site="site"/>',
            '<Choices name="bom" toName="scan" required="true" model_weight="0.9" model_current="$bom" '
            'model_positive="m"><Choice value="benign"/><Choice value="malignant" alias="m"/></Choices>',
            '<Choices name="tirads" toName="scan" choice="single-radio" model_ordinal="true" model_current="tr">'
            '<Choice value="TR1"/><Choice value="TR2"/></Choices>',
            '<Choices name="foci" toName="scan" choice="multiple">'
            '<View><Choice value="a"/></View><Choice value="b"/></Choices>',
            '<Rating name="quality" toName="scan" maxRating="3"/>',
        )
    )
    assert (schema.image_name, schema.image_field) == ("scan", "url")
    assert (schema.group_field, schema.site_field) == ("patient", "site")
    bom, tirads, foci, quality = schema.heads
    assert (bom.kind, bom.classes, bom.shown) == ("single", ("benign", "m"), ("benign", "malignant"))
    assert (bom.required, bom.current, bom.positive, bom.ordinal) == (True, "bom", "m", False)
    assert (tirads.kind, tirads.ordinal, tirads.current, tirads.required) == ("single", True, "tr", False)
    assert (foci.kind, foci.multiple, foci.classes) == ("multiple", True, ("a", "b"))
    assert (quality.kind, quality.ordinal, quality.classes) == ("rating", True, ("1", "2", "3"))
    assert [head.weight for head in schema.heads] == pytest.approx([0.9, 0.1 / 3, 0.1 / 3, 0.1 / 3])
    assert schema.left_alone == ()


def test_masks_are_heads_of_their_own():
    schema = parse_label_config(
        view(IMAGE, NUCLEI(' model_weight="3"'), BOM(""), GLANDS.replace(">", ' model_weight="1">', 1))
    )
    assert [(head.name, head.weight) for head in schema.heads] == [("bom", 1)]
    nuclei, glands = schema.masks
    assert (nuclei.name, nuclei.to_name, nuclei.kind, nuclei.weight) == ("nuclei", "image", "brush", 0.75)
    assert (nuclei.classes, nuclei.shown) == (("n",), ("nucleus",))
    assert (glands.kind, glands.classes, glands.weight) == ("polygon", ("benign", "malignant"), 0.25)
    assert schema.left_alone == ()
    assert {head.name: head.weight for head in schema.learnt} == {"bom": 0.5, "nuclei": 0.375, "glands": 0.125}
    assert decode_result(schema, [{"from_name": "nuclei", "value": {}}]).problems == ()


def test_masks_alone_can_be_learnt():
    schema = parse_label_config(view('<Image name="other" value="$o"/>', IMAGE, NUCLEI("")))
    assert schema.heads == ()
    assert schema.learnt == schema.masks
    assert [(head.name, head.weight) for head in schema.masks] == [("nuclei", 1)]
    assert schema.image_field == "image"


def test_labels_of_masks_are_those_of_label_studio():
    xml = view(
        IMAGE,
        '<BrushLabels name="c" toName="image"><View><Label value="one" alias="1st"/></View><Label alias="two"/>'
        '<Label value="three" alias=""/></BrushLabels>',
    )
    assert list(parse_label_config(xml).masks[0].classes) == LabelInterface(xml).get_control("c").labels


def test_rating_has_five_stars_by_default():
    assert parse_label_config(view(IMAGE, '<Rating name="r" toName="image"/>')).heads[0].classes == tuple("12345")


def test_classes_are_those_of_label_studio():
    """The SDK's own reading is the oracle: alias before value, choices inside views, in order."""
    xml = view(
        IMAGE,
        '<Choices name="c" toName="image"><View><Choice value="one" alias="1st"/></View><Choice alias="two"/>'
        '<Choice value="three" alias=""/></Choices>',
    )
    assert list(parse_label_config(xml).heads[0].classes) == LabelInterface(xml).get_control("c").labels


@pytest.mark.parametrize(
    ("given_weights", "expected"),
    [
        (("", ""), (0.5, 0.5)),
        ((' model_weight="3"', ' model_weight="1"'), (0.75, 0.25)),
        ((' model_weight="0.9"', ""), (0.9, 0.1)),
        ((' model_weight="0"', ""), (0, 1)),
        ((' model_weight="0"', ' model_weight="2"'), (0, 1)),
    ],
)
def test_weights_sum_to_one(given_weights, expected):
    schema = parse_label_config(view(IMAGE, BOM(given_weights[0]), TIRADS(given_weights[1])))
    assert [head.weight for head in schema.heads] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("tag", "reason"),
    [
        ('<Rating name="x" toName="image" perRegion="true"/>', "per region"),
        (BOM(' perItem="true"').replace("bom", "x"), "per item"),
        ('<RectangleLabels name="x" toName="image"><Label value="a"/></RectangleLabels>', "marks regions"),
        ('<Brush name="x" toName="image"/>', "marks regions"),
        ('<BitmaskLabels name="x" toName="image"><Label value="a"/></BitmaskLabels>', "only those of BrushLabels"),
        ('<BrushLabels name="x" toName="image"/>', "it has no Label"),
        ('<BrushLabels name="x" toName="image" value="$labels"/>', "come from $labels"),
        ('<Text name="t" value="$t"/>' + NUCLEI("").replace("image", "t").replace("nuclei", "x"), "belongs to 't'"),
        ('<Image name="two" value="$b"/>' + GLANDS.replace("image", "two").replace("glands", "x"), "belongs to 'two'"),
        ('<TextArea name="x" toName="image"/>', "TextArea is not learnt"),
        ('<Taxonomy name="x" toName="image"><Choice value="a"/></Taxonomy>', "Taxonomy is not learnt"),
        ('<Choices name="x" toName="image" value="$options"/>', "come from $options"),
        ('<Choices name="x" toName="image" allowNested="true"><Choice value="a"/></Choices>', "paths"),
        ('<Choices name="x" toName="image"><Choice value="a"/></Choices>', "two or more classes"),
        ('<Text name="t" value="$t"/><Rating name="x" toName="t"/>', "belongs to 't'"),
        ('<Rating name="x" toName="image,bom"/>', "belongs to 'image,bom'"),
        ('<Repeater on="$p"><Rating name="x" toName="image"/></Repeater>', "Repeater"),
    ],
)
def test_what_cannot_be_learnt_is_named_and_left_alone(tag, reason):
    schema = parse_label_config(view(IMAGE, BOM(""), tag))
    assert [head.name for head in schema.heads] == ["bom"]
    assert schema.left_alone_names == {"x"}
    (sentence,) = schema.left_alone
    assert "'x'" in sentence
    assert reason in sentence


def test_nested_choices_are_no_classes_as_label_studio_hides_them():
    xml = view(
        IMAGE,
        '<Choices name="c" toName="image"><Choice value="a"><Choice value="a1"/></Choice><Choice value="b"/></Choices>',
    )
    schema = parse_label_config(xml)
    assert schema.heads[0].classes == ("a", "b")
    assert "Choice 'a1' of 'c' is left alone" in schema.left_alone[0]


def test_roles_are_kept_apart_from_learning():
    tags = {
        "why": '<TextArea name="n_why" toName="image" model_role="why"/>',
        "note": '<TextArea name="n_note" toName="image" model_role="note"/>',
        "flag": BOM(' model_role="flag"').replace("bom", "n_flag"),
        "review": BOM(' model_role="review"').replace("bom", "n_review"),
        "confidence": '<Rating name="n_confidence" toName="image" maxRating="2" model_role="confidence"/>',
        "similar": '<HyperText name="n_similar" value="$similar" model_role="similar"/>',
        "look": '<RectangleLabels name="n_look" toName="image" model_role="look"><Label value="a"/></RectangleLabels>',
        "scope": '<Choices name="n_scope" toName="image" model_role="scope"><Choice value="image"/></Choices>',
    }
    assert set(tags) == set(ROLES)
    schema = parse_label_config(view(IMAGE, BOM(""), *tags.values()))
    assert [head.name for head in schema.heads] == ["bom"]
    assert {role: found.name for role, found in schema.roles.items()} == {role: f"n_{role}" for role in ROLES}
    assert (schema.roles["flag"].tag, schema.roles["flag"].classes) == ("Choices", ("benign", "malignant"))
    assert schema.roles["confidence"].classes == ("1", "2")
    assert (schema.roles["look"].classes, schema.roles["scope"].classes) == (("a",), ("image",))
    assert (schema.roles["why"].to_name, schema.roles["similar"].to_name) == ("image", "")
    assert schema.roles["similar"].field == "similar"
    assert schema.left_alone == ()


def test_of_several_images_the_one_the_controls_point_to():
    assert parse_label_config(view('<Image name="other" value="$o"/>', IMAGE, BOM(""))).image_field == "image"


@pytest.mark.parametrize(
    ("xml", "says"),
    [
        ("<View>\n<Image></View>", "line 2, column"),
        ("", "not valid XML at line 1"),
        ("<View>\ud800</View>", "character"),
        ('<!DOCTYPE v [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><View>&b;</View>', "DOCTYPE"),
        (
            view(IMAGE, BOM(""), '<Text name="s" value="$similar" model_role="similar"/>'),
            "Text 's' cannot have model_role='similar'",
        ),
        (
            view(IMAGE, BOM(""), '<HyperText name="s" value="&lt;b/&gt;" model_role="similar"/>'),
            "a HyperText that shows one task field",
        ),
        (
            view(IMAGE, BOM(""), '<HyperText name="s" value="$image" model_role="similar"/>'),
            "'$image' is written by the backend, and Image 'image' uses it too (value)",
        ),
        (
            view(IMAGE, BOM(' model_current="s"'), '<HyperText name="h" value="$s" model_role="similar"/>'),
            "Choices 'bom' uses it too (model_current)",
        ),
        (
            view(IMAGE, BOM(""), BOM(' model_role="scope"').replace("bom", "s")),
            "'s' has model_role='scope' and the Choices 'benign', 'malignant'",
        ),
        (view(IMAGE, BOM(""), SCOPE.format("patches")), "add a RectangleLabels"),
        (view(IMAGE, BOM(""), '<Choices name="s" toName="image" model_role="scope"/>'), "the Choices none"),
        (view(IMAGE, BOM(""), BOM(' model_role="look"').replace("bom", "l")), "type rectanglelabels or rectangle"),
        (view(IMAGE, NUCLEI(' model_weight="0"')), "Every model_weight is 0"),
        (view(IMAGE, '<BrushLabels name="b" toName="image"><Label/></BrushLabels>'), "A Label of 'b' has neither"),
        (view(IMAGE, GLANDS.replace("benign", "malignant")), "'malignant' twice"),
        (view(BOM("")), "no Image tag"),
        (view(IMAGE), "nothing to learn"),
        (view(IMAGE, '<Brush name="b" toName="image"/>'), "Brush 'b' is left alone"),
        (view(IMAGE, '<Image name="two" value="$two"/>'), "several Image tags ('image', 'two')"),
        (
            view(IMAGE, '<Image name="two" value="$two"/>', BOM(""), '<Rating name="r" toName="two"/>'),
            "bom to 'image'; r to 'two'",
        ),
        (view('<Image name="image" valueList="$pages"/>', BOM("")), "from '$pages'"),
        (view('<Image name="image" value="http://a/b.png"/>', BOM("")), "from 'http://a/b.png'"),
        (view(IMAGE, BOM(""), BOM("")), "the name 'bom' 2 times"),
        (view(IMAGE, BOM(' model_weight="heavy"')), "model_weight='heavy'"),
        (view(IMAGE, BOM(' model_weight="-1"')), "model_weight='-1'"),
        (view(IMAGE, BOM(' model_weight="nan"')), "model_weight='nan'"),
        (view(IMAGE, BOM(' model_weight="1"'), TIRADS("")), "leaves nothing for 'tirads'"),
        (view(IMAGE, BOM(' model_weight="0"')), "Every model_weight is 0"),
        (view(IMAGE, BOM(' model_positive="bad"')), "none of its classes: benign, malignant"),
        (view(IMAGE, BOM(' model_ordinal="yes"')), "model_ordinal='yes'"),
        (view(IMAGE, BOM(' choice="multiple" model_ordinal="true"')), "has no order"),
        (view(IMAGE, BOM(' choice="both"')), "choice='both'"),
        (view(IMAGE, BOM(' model_role="expert"')), "unknown model_role='expert'"),
        (view(IMAGE, BOM(' model_role="why"')), "type textarea"),
        (view(IMAGE, BOM(""), '<Choices name="f" toName="image" model_role="flag"/>'), "no Choice to tick"),
        (view(IMAGE, BOM(""), '<Rectangle model_role="look"/>'), "has no name"),
        (
            view(
                IMAGE,
                '<TextArea name="a" toName="image" model_role="why"/>'
                '<TextArea name="b" toName="image" model_role="why"/>',
            ),
            "'a' and 'b' both",
        ),
        (view(IMAGE, BOM("").replace("benign", "malignant")), "'malignant' twice"),
        (view(IMAGE, '<Choices name="c" toName="image"><Choice/></Choices>'), "neither value nor alias"),
        (view(IMAGE, '<Rating name="r" toName="image" maxRating="many"/>'), "maxRating='many'"),
        (view(IMAGE, f'<Rating name="r" toName="image" maxRating="{"9" * 5000}"/>'), "from 1 to 100"),
    ],
)
def test_what_is_wrong_is_said(xml, says):
    with pytest.raises(SchemaError) as caught:
        parse_label_config(xml)
    assert says in str(caught.value)


def test_deep_nesting_does_not_break_the_reader():
    deep = '<Choice value="a">' * 2000 + "</Choice>" * 2000
    xml = view(IMAGE, f'<Choices name="c" toName="image">{deep}<Choice value="b"/></Choices>')
    assert parse_label_config(xml).heads[0].classes == ("a", "b")


def test_fingerprint_follows_what_outputs_mean():
    plain = parse_label_config(view(IMAGE, BOM("")))
    reweighted = parse_label_config(view(IMAGE, BOM(' model_weight="2" required="true" model_current="$b"')))
    swapped = parse_label_config(
        view(
            IMAGE,
            '<Choices name="bom" toName="image"><Choice value="malignant"/><Choice value="benign"/></Choices>',
        )
    )
    multiple = parse_label_config(view(IMAGE, BOM(' choice="multiple"')))
    masked = parse_label_config(view(IMAGE, BOM(""), GLANDS))
    alone = parse_label_config(view(IMAGE, GLANDS))
    assert plain.fingerprint() == reweighted.fingerprint()
    different = {schema.fingerprint() for schema in (plain, swapped, multiple, masked, alone)}
    assert len(different) == 5
    # Stored with every model: one of another value would refuse all models trained before.
    assert plain.fingerprint() == sha256(b'[["bom", "single", ["benign", "malignant"]]]').hexdigest()


@given(
    st.lists(
        st.sampled_from(
            [
                *(
                    IMAGE,
                    BOM(""),
                    BOM(' model_role="flag"'),
                    NUCLEI(""),
                    '<Rating name="r" toName="image" maxRating="1"/>',
                ),
                *("<View>", "</View>", '<Choices toName="image">', '<Filter name="f" toName="image"/>'),
                *("&#x41;", "&b;"),
            ]
        )
    )
)
def test_any_config_is_read_or_refused_in_words(tags):
    try:
        schema = parse_label_config(view(*tags))
    except SchemaError as error:
        assert str(error)
    else:
        for heads in filter(None, (schema.heads, schema.masks)):
            assert sum(head.weight for head in heads) == pytest.approx(1)
