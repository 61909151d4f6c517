"""Masks beside the images of a data folder, good and bad."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.datafolder import DataFolderError, read
from tasks.mask_codec import decode_masks
from tasks.mask_files import MaskError, read_mask, size_of
from tasks.schema import parse_label_config

MASKS = """<View><Image name="image" value="$image"/>
  <BrushLabels name="organ" toName="image"><Label value="lobe"/><Label value="nodule"/></BrushLabels>
  <PolygonLabels name="cyst" toName="image"><Label value="cyst"/></PolygonLabels>
  <RectangleLabels name="look" toName="image" model_role="look"><Label value="look"/></RectangleLabels>
  <Choices name="scope" toName="image" model_role="scope"><Choice value="image"/><Choice value="patches"/></Choices>
</View>"""


@pytest.fixture
def marked(tmp_path: Path) -> Path:
    """Images of 40 x 30 pixels with masks, good and bad."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "marked"
    folder.mkdir()
    for name in "abcdefg":
        Image.fromarray(rng.integers(0, 255, (30, 40, 3), dtype=np.uint8)).save(folder / f"{name}.jpg")
    organ = np.zeros((30, 40), dtype=np.uint8)
    organ[5:20, 5:20], organ[8:12, 10:15] = 1, 2
    Image.fromarray(organ).save(folder / "organ.png")
    Image.fromarray(organ[:, :20] * 0).save(folder / "narrow.png")
    Image.fromarray(organ * 0 + 9).save(folder / "nine.png")
    (folder / "torn.png").write_bytes((folder / "organ.png").read_bytes()[:60])
    (folder / "text.png").write_text("no image")
    cyst = Image.fromarray(np.where(organ == 2, 255, 0).astype(np.uint8))
    cyst.save(folder / "cyst.png")
    cyst.convert("1").save(folder / "flags.png")
    cyst.convert("RGBA").save(folder / "colour.png")
    Image.fromarray(organ * 0).save(folder / "empty.png")
    rows = [
        "file,organ,cyst,true_cyst",
        "a.jpg,organ.png,cyst.png,",
        "b.jpg,organ.png,,flags.png",
        "c.jpg,narrow.png,colour.png,",
        "d.jpg,nine.png,torn.png,text.png",
        "e.jpg,gone.png,../cyst.png,",
        "f.jpg,empty.png,empty.png,",
        "g.jpg,colour.png,,",
    ]
    (folder / "labels.csv").write_text("\n".join(rows))
    return folder


def test_masks_are_read_and_bad_ones_named_while_their_rows_stay(marked: Path) -> None:
    found = read(marked, parse_label_config(MASKS))
    assert [row.file for row in found.rows] == [f"{name}.jpg" for name in "abcdefg"]
    assert [sorted(row.masks) for row in found.rows] == [
        ["cyst", "organ"],
        ["organ"],
        ["cyst"],
        [],
        [],
        ["cyst", "organ"],
        [],
    ]
    assert [sorted(row.true_masks) for row in found.rows[:2]] == [["cyst", "organ"]] * 2
    assert found.unlabelled == ("d.jpg", "e.jpg", "g.jpg")
    expected = [
        ("line 4, column 'organ': the mask 'narrow.png' is of no use: it has 20 x 30 pixels, and the image 40 x 30"),
        ("line 5, column 'organ': the mask 'nine.png' is of no use: it holds the value 9, and there are 2 classes"),
        ("line 5, column 'cyst': the mask 'torn.png' is of no use: it cannot be read"),
        ("line 5, column 'true_cyst': the mask 'text.png' is of no use: it is no image"),
        ("line 6, column 'organ': the mask 'gone.png' is of no use: there is no such file"),
        ("line 6, column 'cyst': the mask '../cyst.png' leaves the folder"),
        ("line 8, column 'organ': the mask 'colour.png' is of no use: it is in colour: with 2 classes"),
    ]
    assert len(found.problems) == len(expected)
    for problem, part in zip(found.problems, expected, strict=True):
        assert part in problem and problem.endswith("It is left out.")
    first, second, third = found.rows[:3]
    organ = np.asarray(Image.open(marked / "organ.png"))
    assert found.mask(first, "organ").dtype == np.uint8
    assert (found.mask(first, "organ") == np.stack([organ == 1, organ == 2])).all()
    for row, truth in ((first, False), (second, True), (third, False)):  # grey, black and white, in colour
        assert (found.mask(row, "cyst", truth) == (organ == 2)[None]).all()
    with pytest.raises(KeyError):
        found.mask(second, "cyst")


def test_recorded_masks_as_annotations_are_what_was_read(marked: Path) -> None:
    schema = parse_label_config(MASKS)
    found = read(marked, schema)
    made = found.annotations(3)
    assert set(made) == {"a.jpg", "f.jpg"}  # both masks are known
    first, empty = (decode_masks(schema, made[name][0]["result"], 30, 40) for name in ("a.jpg", "f.jpg"))
    for said, row in ((first, found.rows[0]), (empty, found.rows[5])):
        assert said.problems == () and said.reviewed.all()
        assert all((said.masks[head] == (found.mask(row, head) != 0)).all() for head in ("organ", "cyst"))
    assert not any("score" in item for item in made["a.jpg"][0]["result"])
    without = read(marked, parse_label_config(MASKS.replace('model_role="scope"', 'visibleWhen="x"')))
    assert "f.jpg" not in without.annotations(3)  # nothing can say that it was looked at


def test_a_folder_without_the_masks_column_or_a_mask_that_is_gone_says_so(marked: Path) -> None:
    found = read(marked, parse_label_config(MASKS))
    (marked / "organ.png").unlink()
    with pytest.raises(MaskError, match="no such file"):
        found.annotations(3)
    (marked / "labels.csv").write_text("file,mask\na.jpg,cyst.png\n")
    with pytest.raises(DataFolderError, match=r"none of the label config's columns \(organ, cyst\)"):
        read(marked, parse_label_config(MASKS))


def test_sizes_are_those_that_are_shown(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("RGB", (40, 30)).save(tmp_path / "turned.jpg", exif=exif)
    assert size_of(tmp_path / "turned.jpg") == (40, 30)
    (tmp_path / "scan.dcm").write_bytes(bytes(128) + b"DICM")
    assert size_of(tmp_path / "scan.dcm") is None
    Image.new("L", (30, 40), 7).save(tmp_path / "mask.png")
    assert read_mask(tmp_path / "mask.png", 1, size_of(tmp_path / "turned.jpg")).all()


def test_a_mask_beyond_pillows_limit_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (30, 40), 7).save(tmp_path / "mask.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    assert size_of(tmp_path / "mask.png") is None
    with pytest.raises(MaskError, match="more pixels than are unpacked"):
        read_mask(tmp_path / "mask.png", 1)
