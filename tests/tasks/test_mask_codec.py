"""Regions there and back, what Label Studio's own tools say of them, and what a region that is broken leaves whole."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from label_studio_sdk.converter import brush
from label_studio_sdk.label_interface import LabelInterface

from tasks.codec import decode_result, encode_why
from tasks.mask_codec import Patch, decode_masks, encode_masks
from tasks.schema import parse_label_config

ROOT = Path(__file__).parents[2]
CONFIG = """
<View>
  <Image name="image" value="$image"/>
  <BrushLabels name="tissue" toName="image"><Label value="tumour" alias="t"/><Label value="stroma"/></BrushLabels>
  <PolygonLabels name="gland" toName="image"><Label value="gland"/></PolygonLabels>
  <RectangleLabels name="look" toName="image" model_role="look">
    <Label value="look here"/><Label value="border"/>
  </RectangleLabels>
  <Choices name="scope" toName="image" model_role="scope">
    <Choice value="Rectangles" alias="patches"/><Choice value="All" alias="image"/>
  </Choices>
  <Choices name="kind" toName="image"><Choice value="a"/><Choice value="b"/></Choices>
  <TextArea name="why" toName="image" model_role="why"/>
</View>
"""
SCHEMA = parse_label_config(CONFIG)
H, W = 40, 60
MASKS = arrays.arrays(np.bool_, st.tuples(st.just(2), st.integers(1, 20), st.integers(1, 20)))


def disc(row: int, column: int, radius: int, height: int = H, width: int = W) -> Any:
    rows, columns = np.mgrid[:height, :width]
    return (rows - row) ** 2 + (columns - column) ** 2 <= radius**2


def encoded(tissue: Any, gland: Any = None, patches: Any = (), height: int = H, width: int = W) -> list[Any]:
    gland = np.zeros((1, height, width), dtype=np.bool_) if gland is None else gland
    masks, scores = {"tissue": tissue, "gland": gland}, {"tissue": [0.91234, 0.4], "gland": [0.7]}
    return encode_masks(SCHEMA, height, width, masks, scores, patches)


def answer(choice: str) -> dict[str, Any]:
    return {"from_name": "scope", "to_name": "image", "type": "choices", "value": {"choices": [choice]}}


def region(mask: Any = None, **changes: Any) -> dict[str, Any]:
    """What Label Studio's brush submits, for a disc, with changes to it or its value."""
    mask = disc(20, 30, 9) if mask is None else mask
    value = {"format": "rle", "rle": brush.mask2rle(mask.astype(np.uint8) * 255), "brushlabels": ["t"]}
    size = {"original_width": mask.shape[1], "original_height": mask.shape[0], "image_rotation": 0}
    names = {"id": "r1", "from_name": "tissue", "to_name": "image", "type": "brushlabels", "origin": "manual"}
    top = {key: changes.pop(key) for key in ("id", "from_name", "original_width", "original_height") if key in changes}
    return {**names, **size, "value": value | changes, **top}


def rectangle(x: Any, y: Any, width: Any, height: Any, **more: Any) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": more.pop("rotation", 0)}
    return {"id": "l1", "from_name": "look", "value": value | {"rectanglelabels": ["border"]}, **more}


@given(MASKS, st.data())
def test_masks_and_rectangles_come_back(tissue: Any, data: st.DataObject) -> None:
    height, width = tissue.shape[1:]
    gland = data.draw(arrays.arrays(np.bool_, (1, height, width)))
    corner = st.tuples(st.integers(0, width - 1), st.integers(0, height - 1))
    patches = []
    for x, y in data.draw(st.lists(corner, max_size=3)):
        across, down = data.draw(st.integers(1, width - x)), data.draw(st.integers(1, height - y))
        patches.append(Patch(x, y, across, down, 0.25, data.draw(st.sampled_from(["look here", "border"]))))
    result = encoded(tissue, patches=patches, height=height, width=width)
    found = decode_masks(SCHEMA, result, height, width)
    np.testing.assert_array_equal(found.masks["tissue"], tissue)
    assert found.patches == tuple(patches)
    assert found.problems == ()
    assert all(flags.all() for flags in found.complete.values())
    assert result == encoded(tissue, patches=patches, height=height, width=width)
    assert len({item["id"] for item in result}) == len(result)
    # Outlines are simplified, so that ragged glands come back nearly as they were; a middle is never further off.
    drawn = decode_masks(SCHEMA, encoded(tissue, gland, height=height, width=width), height, width).masks["gland"]
    near = cv2.dilate(gland[0].astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    assert not (drawn[0] & ~near).any()


def test_label_studio_accepts_what_is_encoded_and_its_converter_reads_it() -> None:
    tissue = np.stack([disc(15, 20, 9), disc(25, 40, 12)])
    gland = np.stack([disc(20, 15, 10) & ~disc(20, 15, 4) | disc(20, 45, 8)])
    result = encoded(tissue, gland, [Patch(8, 0, 16, 16, 0.83), Patch(40, 20, 20, 20, 0.5, "border")])
    result += encode_why(SCHEMA, "Why.")
    prediction = {"result": result, "score": 0.1, "model_version": "v1"}
    assert LabelInterface(CONFIG).validate_prediction(prediction, return_errors=True) == []
    brushed = [item for item in result if item["type"] == "brushlabels"]
    layers = brush.decode_from_annotation("tissue", [item | item["value"] for item in brushed])
    np.testing.assert_array_equal(layers["tissue-t-0"] > 0, tissue[0])
    np.testing.assert_array_equal(layers["tissue-stroma-0"] > 0, tissue[1])
    kinds = [(item["id"], item["type"], item.get("score")) for item in result]
    assert kinds == [
        ("tissue-0-0", "brushlabels", 0.9123),
        ("tissue-1-0", "brushlabels", 0.4),
        ("gland-0-0", "polygonlabels", 0.7),
        ("gland-0-1", "polygonlabels", 0.7),
        ("look-0", "rectanglelabels", 0.83),
        ("look-1", "rectanglelabels", 0.5),
        ("why", "textarea", None),
    ]
    assert [item["value"]["rectanglelabels"] for item in result[4:6]] == [["look here"], ["border"]]
    found = decode_masks(SCHEMA, result, H, W)
    drawn = found.masks["gland"]
    assert (drawn & gland).sum() / (drawn | gland).sum() > 0.97
    assert found.problems == decode_result(SCHEMA, result).problems == ()


def test_regions_of_one_class_are_united_and_may_have_several_classes() -> None:
    one, other = disc(10, 10, 5), disc(30, 40, 6)
    both = region(one | other, brushlabels=["t", "stroma"])
    found = decode_masks(SCHEMA, [region(one), both, region(other, brushlabels=["stroma"])], H, W)
    np.testing.assert_array_equal(found.masks["tissue"], [one | other, one | other])
    assert not found.masks["gland"].any() and found.masks["gland"].shape == (1, H, W)


def test_the_soft_border_of_a_brush_is_inside_from_a_half_on() -> None:
    alpha = np.arange(256, dtype=np.uint8).reshape(16, 16)
    item = region(alpha > 0, rle=brush.mask2rle(alpha))
    found = decode_masks(SCHEMA, [item], 16, 16)
    np.testing.assert_array_equal(found.masks["tissue"][0], alpha >= 128)


PATCH = rectangle(10, 25, 20, 50)  # columns 6 to 17, rows 10 to 29


@pytest.mark.parametrize(
    ("result", "reviewed"),
    [
        ([], 0),
        ([{"from_name": "why", "value": {"text": ["Why."]}}, {"from_name": "kind", "value": {"choices": ["a"]}}], 0),
        ([answer("image")], H * W),
        ([answer("image"), PATCH, region()], H * W),
        ([answer("patches"), PATCH, region()], 12 * 20),
        ([answer("patches"), PATCH, rectangle(10, 25, 10, 100)], 12 * 20 + 6 * 10),
        ([answer("patches"), region()], 0),
        ([PATCH, region()], 12 * 20),
        ([region()], H * W),
        ([region(brushlabels=["gone"])], H * W - int(disc(20, 30, 9).sum())),
    ],
)
def test_what_was_reviewed(result: list[Any], reviewed: int) -> None:
    found = decode_masks(SCHEMA, result, H, W)
    assert found.reviewed.sum() == reviewed
    if reviewed == 12 * 20:
        assert found.reviewed[10:30, 6:18].all()
        assert found.patches == (Patch(6, 10, 12, 20, None, "border"),)


def polygon(points: Any) -> dict[str, Any]:
    value = {"points": points, "polygonlabels": ["gland"]}
    return region(from_name="gland") | {"value": value, "type": "polygonlabels"}


TRIANGLE = [[10, 10], [90, 10], [50, 90]]
SHRUNK = "drawn on an image of 120 x 80 pixels, and the image has 60 x 40 now"
EMPTY = np.zeros((H, W), dtype=np.bool_)


@pytest.mark.parametrize(
    ("broken", "says", "complete"),
    [
        (region(brushlabels=["gone"]), "Region 'r1' of 'tissue' has the label 'gone', no class", [True, True]),
        (region(brushlabels=[]), "has no label: give it one of t, stroma", [True, True]),
        (region(brushlabels=7, rle=[]), "has no label", [False, False]),
        (region(brushlabels=["gone"], rle=[]), "'gone', no class of 'tissue' (t, stroma)", [False, False]),
        (region(rle=[1, 2, 3]), "Region 'r1' of 'tissue': the mask has 3 bytes, too few", [False, True]),
        (region(rle=region()["value"]["rle"][:-9], brushlabels=["stroma"]), "cut off", [True, False]),
        (region(rle="abc"), "no list of bytes", [False, True]),
        (region(disc(5, 5, 2, 9, 9), original_width=W, original_height=H), "values; 60 x 40 pixels", [False, True]),
        (region(disc(20, 20, 9, 80, 120)), SHRUNK, [False, True]),
        (region(original_width="wide"), "'wide' x 40 pixels", [False, True]),
        (region(EMPTY), "holds no pixel", [True, True]),
        (region() | {"value": None}, "has no label", [False, False]),
        (region() | {"value": {"brushlabels": ["t"], "touches": []}}, "it has no rle", [False, True]),
    ],
)
def test_a_broken_region_is_named_and_nothing_else_is_lost(broken: Any, says: str, complete: list[bool]) -> None:
    whole = region(disc(8, 8, 5), brushlabels=["stroma"], id="r2")
    found = decode_masks(SCHEMA, [whole, broken, polygon(TRIANGLE), answer("image"), PATCH], H, W)
    assert says in " ".join(found.problems)
    assert found.complete["tissue"].tolist() == complete
    assert found.complete["gland"].all()
    assert found.masks["tissue"][1][disc(8, 8, 5)].all()
    assert found.masks["gland"].any()
    assert found.patches


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (polygon(TRIANGLE[:2]), "2 points, and a polygon has three or more"),
        (polygon("round"), "0 points"),
        (polygon([*TRIANGLE, [50, None]]), "no usable place: [50, None]"),
        (polygon([*TRIANGLE, [50, float("nan")]]), "no usable place"),
        (polygon([*TRIANGLE, [50, 10**400]]), "no usable place"),
        (polygon([[1.1, 1], [1.2, 1], [1.1, 1.1]]), "holds no pixel"),
        (polygon([[200, 200], [300, 200], [300, 300]]), "holds no pixel"),
        (rectangle(10, 10, 5, 5, rotation=30), "Region 'l1' of 'look': it is rotated"),
        (rectangle(10, 10, 0, 5), "holds no pixel"),
        (rectangle(10, "top", 5, 5), "no usable place"),
        (rectangle(120, 10, 5, 5), "holds no pixel"),
        (rectangle(10, 10, 5, 5, original_width=W, original_height=9), "image of 60 x 9 pixels"),
        (answer("all"), "The result for 'scope' is none of patches, image"),
        (answer("patches"), "'scope' says that the rectangles were reviewed, and there is none"),
    ],
)
def test_broken_polygons_rectangles_and_scopes_are_named(broken: Any, says: str) -> None:
    found = decode_masks(SCHEMA, [region(), broken], H, W)
    assert says in " ".join(found.problems)
    assert len(found.problems) == 1
    np.testing.assert_array_equal(found.masks["tissue"][0], disc(20, 30, 9))
    assert found.complete["tissue"].all()


NUMBERS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
ANY = st.recursive(
    NUMBERS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["x", "y", "width", "height", "rotation", "points", "rle", "choices", "brushlabels"]), inner
        )
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {"from_name": st.sampled_from(["tissue", "gland", "look", "scope"]), "value": ANY},
            optional={"id": NUMBERS, "original_width": NUMBERS, "score": NUMBERS},
        )
        | ANY
    )
    | ANY
)
def test_whatever_comes_is_read_or_named(result: Any) -> None:
    found = decode_masks(SCHEMA, result, 6, 9)
    assert found.reviewed.shape == (6, 9)
    assert all(isinstance(problem, str) and problem for problem in found.problems)


def test_parts_at_the_border_of_the_image_are_cut_off() -> None:
    found = decode_masks(SCHEMA, [rectangle(-10, 90, 20, 20), polygon([[-50, -50], [150, -50], [150, 50]])], H, W)
    assert found.patches == (Patch(0, 36, 6, 4, None, "border"),)
    assert found.masks["gland"].any() and not found.problems


@pytest.mark.parametrize(
    ("tissue", "patches", "says"),
    [
        (np.zeros((2, H, 5), dtype=np.bool_), [], r"'tissue' needs masks of \(2, 40, 60\), but got \(2, 40, 5\)"),
        (np.zeros((2, H, W), dtype=np.bool_), [Patch(50, 0, 11, 5)], "not inside an image of 60 x 40"),
    ],
)
def test_what_cannot_be_drawn_is_refused(tissue: Any, patches: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        encoded(tissue, patches=patches)


def test_without_look_and_scope_nothing_is_drawn_on_parts_and_all_is_reviewed() -> None:
    config = (
        '<View><Image name="i" value="$i"/>{}<BrushLabels name="m" toName="i"><Label value="n"/></BrushLabels></View>'
    )
    plain = parse_label_config(config.format(""))
    mask = {"m": disc(20, 20, 6)[None]}
    result = encode_masks(plain, H, W, mask, {"m": [1.0]}, [Patch(0, 0, 5, 5, 0.5)])
    assert [item["type"] for item in result] == ["brushlabels"]
    assert decode_masks(plain, result, H, W).reviewed.all()
    box = parse_label_config(config.format('<Rectangle name="look" toName="i" model_role="look"/>'))
    patch = Patch(10, 4, 30, 20, 0.5)
    result = encode_masks(box, H, W, {}, {}, [patch])
    assert [(item["type"], item["value"].keys()) for item in result] == [
        ("rectangle", {"x", "y", "width", "height", "rotation"})
    ]
    assert decode_masks(box, result, H, W).patches == (patch,)
