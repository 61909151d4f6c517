"""What annotations paint, against a loop over pixels that asks each of them; and the key under which it is kept."""

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.marks import digest, fits, marking, paint, planes
from tasks.rle import encode_mask
from tasks.schema import parse_label_config
from tasks.tables import Annotation

CONFIG = """<View>
  <Image name="image" value="$image"/>
  <BrushLabels name="tissue" toName="image"><Label value="tumour" alias="t"/><Label value="stroma"/></BrushLabels>
  <PolygonLabels name="gland" toName="image"><Label value="gland"/></PolygonLabels>
  <RectangleLabels name="look" toName="image" model_role="look"><Label value="look here"/></RectangleLabels>
  <Choices name="scope" toName="image" model_role="scope">
    <Choice value="Rectangles" alias="patches"/><Choice value="All" alias="image"/>
  </Choices>
  <Choices name="kind" toName="image"><Choice value="a"/><Choice value="b"/></Choices>
</View>"""
SCHEMA = parse_label_config(CONFIG)
H, W = 6, 10
SIZE = {"original_width": W, "original_height": H}


def brush(pixels: set[tuple[int, int]], *labels: str, **more: Any) -> dict[str, Any]:
    mask = np.zeros((H, W), dtype=np.uint8)
    for row, column in pixels:
        mask[row, column] = 255
    value = {"format": "rle", "rle": encode_mask(mask), "brushlabels": list(labels)}
    return {"from_name": "tissue", "type": "brushlabels", "value": value} | SIZE | more


def box(row: int, column: int, height: int, width: int, **more: Any) -> dict[str, Any]:
    value = {"x": 100 * column / W, "y": 100 * row / H, "width": 100 * width / W, "height": 100 * height / H}
    value |= {"rotation": 0, "rectanglelabels": ["look here"]}
    return {"from_name": "look", "type": "rectanglelabels", "value": value} | SIZE | more


def gland(row: int, column: int, height: int, width: int) -> dict[str, Any]:
    """A polygon around whole pixels."""
    corners = [(column, row), (column + width, row), (column + width, row + height), (column, row + height)]
    points = [[100 * x / W, 100 * y / H] for x, y in corners]
    value = {"points": points, "closed": True, "polygonlabels": ["gland"]}
    return {"from_name": "gland", "type": "polygonlabels", "value": value} | SIZE


def scope(answer: str) -> dict[str, Any]:
    return {"from_name": "scope", "type": "choices", "value": {"choices": [answer]}}


def said(at: int, *result: dict[str, Any], by: int = 1, origin: str = "person", **more: Any) -> Annotation:
    """An annotation numbered and last changed in second `at`."""
    moment = f"2026-01-01T00:00:{at:02d}.000000+00:00"
    about = {"id": at, "result": list(result), "completed_by": by, "origin": origin, "updated_at": moment}
    return Annotation(**about, labels={}, **{"flagged": False, **more})


def test_planes_are_the_classes_of_all_mask_heads_in_order() -> None:
    assert planes(SCHEMA) == (("tissue", "t"), ("tissue", "stroma"), ("gland", "gland"))


PIXELS = st.sets(st.tuples(st.integers(0, H - 1), st.integers(0, W - 1)), max_size=12)
CORNERS = st.tuples(st.integers(0, H - 2), st.integers(0, W - 2)).flatmap(
    lambda at: st.tuples(st.just(at[0]), st.just(at[1]), st.integers(1, H - at[0]), st.integers(1, W - at[1]))
)
WORDS = st.fixed_dictionaries(
    {
        "t": PIXELS,
        "stroma": PIXELS,
        "boxes": st.lists(CORNERS, max_size=2),
        "scope": st.sampled_from(["patches", "image", None]),
        "by": st.integers(1, 3),
        "origin": st.sampled_from(["person", "person", "person", "imported", "earlier", "machine", "skipped", "empty"]),
        "flagged": st.sampled_from([False] * 6 + [True]),
        "parent": st.sampled_from([None, 7]),
        "broken": st.sampled_from([False] * 6 + [True]),
        "gone": st.sampled_from([None, None, None, 1.0]),
    }
)


def annotation(at: int, word: dict[str, Any]) -> Annotation:
    result = [brush(word[name], name) for name in ("t", "stroma") if word[name]]
    result += [box(*corners) for corners in word["boxes"]]
    result += [scope(word["scope"])] if word["scope"] else []
    if word["broken"]:
        result.append(brush(set(), "t", value={"brushlabels": ["t"], "rle": [1, 2, 3]}))
    more = {"deleted_at": word["gone"], "parent_prediction": word["parent"], "confidence": 0.0}
    return said(at, *result, by=word["by"], origin=word["origin"], flagged=word["flagged"], **more)


def reviewed(word: dict[str, Any], row: int, column: int) -> bool:
    boxed = any(y <= row < y + h and x <= column < x + w for y, x, h, w in word["boxes"])
    marked = bool(word["t"] or word["stroma"] or word["broken"])
    return {"patches": boxed, "image": True, None: boxed if word["boxes"] else marked}[word["scope"]]


@settings(max_examples=200, deadline=None)
@given(st.lists(WORDS, max_size=5), st.randoms(use_true_random=False))
def test_paint_is_each_pixels_last_word(words: list[dict[str, Any]], shuffled: Any) -> None:
    annotations = [annotation(at, word) for at, word in enumerate(words)]
    living = [(at, word) for at, word in enumerate(words) if word["gone"] is None]
    record = [pair for pair in living if pair[1]["origin"] in ("imported", "earlier")]
    own = {word["by"]: (at, word) for at, word in living if word["origin"] == "person"}
    flags = [at for at, word in own.values() if word["flagged"]]
    people = sorted((pair for pair in own.values()), key=lambda pair: pair[0])
    if flags:
        people = [(at, word) for at, word in people if at > max(flags) and word["parent"] is None]
    order = [] if flags and not people else [word for _, word in record + people if not word["broken"]]
    shuffled.shuffle(annotations)
    marks = paint(SCHEMA, annotations, H, W)
    assert (marks.masks.dtype, marks.masks.shape) == (np.uint8, (3, H, W))
    for row in range(H):
        for column in range(W):
            words_here = [word for word in order if reviewed(word, row, column)]
            assert marks.reviewed[row, column] == bool(words_here)
            last = words_here[-1] if words_here else {"t": (), "stroma": ()}
            expected = [(row, column) in last[name] for name in ("t", "stroma")]
            assert marks.masks[:, row, column].tolist() == [*expected, 0]
    assert bool(digest(SCHEMA, annotations)) >= bool(marks.reviewed.any())


def test_a_later_word_takes_away_what_an_earlier_one_marked_where_it_was_reviewed() -> None:
    everything = {(row, column) for row in range(H) for column in range(W)}
    record = said(9, brush(everything, "t"), gland(1, 1, 3, 3), origin="imported", by=2)
    first = said(1, box(0, 0, 2, 2), scope("patches"), by=2)
    second = said(2, brush({(0, 0), (5, 9)}, "stroma"), box(0, 0, 1, 1), scope("patches"), by=3)
    marks = paint(SCHEMA, [second, first, record], H, W)
    assert marks.problems == ()
    tumour = np.ones((H, W))
    tumour[:2, :2] = 0
    np.testing.assert_array_equal(marks.masks[0], tumour)
    assert np.argwhere(marks.masks[1]).tolist() == [[0, 0]]
    inside = np.zeros((H, W))
    inside[1:4, 1:4] = 1
    inside[1, 1] = 0
    np.testing.assert_array_equal(marks.masks[2], inside)
    assert marks.reviewed.all()


def test_an_annotation_that_cannot_be_read_paints_nothing_and_is_named() -> None:
    good = said(1, brush({(1, 1)}, "t"), by=2)
    shrunk = said(2, brush({(2, 2)}, "stroma", original_width=99, id="r5"), brush({(3, 3)}, "t"), scope("image"))
    marks = paint(SCHEMA, [good, shrunk], H, W)
    assert np.argwhere(marks.masks.any(0)).tolist() == [[1, 1]]
    assert "Annotation 2: Region 'r5' of 'tissue': it was drawn on an image of 99 x 6 pixels" in marks.problems[0]
    assert marks.problems[1] == "Annotation 2 teaches no mask until all its regions can be read."


OURS = {"origin": "prediction"}


@pytest.mark.parametrize(
    ("result", "says"),
    [
        ([], False),
        ([{"from_name": "kind", "value": {"choices": ["a"]}}], False),
        ([box(0, 0, 2, 2, **OURS), box(3, 3, 2, 2, **OURS)], False),
        ([box(0, 0, 2, 2, **OURS), box(3, 3, 2, 2, origin="prediction-changed")], True),
        ([box(0, 0, 2, 2)], True),
        ([box(0, 0, 2, 2, **OURS), scope("patches")], True),
        ([scope("image")], True),
        ([brush({(0, 0)}, "t", **OURS)], True),
        (None, False),
        ([None, 7, {"from_name": ["tissue"]}], False),
    ],
)
def test_what_marks_something(result: Any, says: bool) -> None:
    annotation = said(1)
    annotation.result = result
    assert bool(marking(SCHEMA, result)) == says == bool(digest(SCHEMA, [annotation]))
    assert paint(SCHEMA, [annotation], H, W).reviewed.any() == says


def test_a_project_without_masks_marks_nothing() -> None:
    plain = parse_label_config(
        '<View><Image name="i" value="$i"/><Choices name="scope" toName="i"><Choice value="image"/><Choice value="b"/>'
        "</Choices></View>"
    )
    assert marking(plain, [scope("image")]) == []
    assert digest(plain, [said(1, scope("image"))]) == ""
    assert paint(plain, [said(1, scope("image"))], H, W).masks.shape == (0, H, W)


def test_the_digest_moves_with_all_that_is_painted_and_with_nothing_else() -> None:
    rows = [said(1, brush({(1, 1)}, "t"), by=1), said(2, box(0, 0, 2, 2), scope("patches"), by=2)]
    here = digest(SCHEMA, rows)
    assert len(here) == 64
    assert digest(SCHEMA, reversed(rows)) == here
    answered = deepcopy(rows)
    answered[0].result = [*rows[0].result, {"from_name": "kind", "value": {"choices": ["a"]}}]
    answered[0].id, answered[0].confidence = 77, 0.3
    assert digest(SCHEMA, [*answered, said(3, brush({(2, 2)}, "t"), by=3, origin="skipped")]) == here
    others = [
        [rows[0]],
        [*rows, said(3, brush({(2, 2)}, "t"), by=3)],
        [said(4, *rows[0].result, by=1), rows[1]],  # the other order
        [rows[0], said(2, box(0, 0, 2, 2), scope("image"), by=2)],
    ]
    renamed = parse_label_config(CONFIG.replace('alias="t"', 'alias="u"'))
    assert len({here, digest(renamed, rows), *(digest(SCHEMA, other) for other in others)}) == 6
    assert digest(SCHEMA, [*rows, said(3, flagged=True, by=3)]) == ""


@pytest.mark.parametrize(
    ("old", "new", "fit"),
    [
        ('alias="t"', 'alias="t" background="red"', True),
        ('<Label value="stroma"/>', '<Label value="stroma"/><Label value="fat"/>', True),
        ('alias="t"', 'alias="u"', False),
        ("BrushLabels", "PolygonLabels", False),
        ('name="tissue"', 'name="tissues"', True),  # as decode_result says, which names the missing control
        ('value="look here"', 'value="look there"', False),
        (' model_role="look"', "", True),  # left alone: they are still drawn
    ],
)
def test_published_regions_fit_while_the_label_config_has_their_labels(old: str, new: str, fit: bool) -> None:
    results = [brush({(1, 1)}, "t"), gland(1, 1, 2, 2), box(0, 0, 2, 2), scope("image")]
    assert fits(SCHEMA, results)
    assert fits(parse_label_config(CONFIG.replace(' model_role="scope"', "").replace(old, new)), results) == fit
