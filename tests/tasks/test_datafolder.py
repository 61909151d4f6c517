"""Data folders: generated ones with everything that real CSV files have wrong, and DDTI where it is there."""

import csv
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.labelstudio import config_fields
from tasks.codec import decode_current, decode_result
from tasks.datafolder import DataFolder, DataFolderError, Row, read
from tasks.schema import parse_label_config

CONFIG = """<View>
  <Image name="image" value="$image" model_group="$patient" model_site="$site"/>
  <Text name="remark" value="$remark"/>
  <Choices name="bom" toName="image" model_current="$label">
    <Choice value="benign"/><Choice value="malignant"/>
  </Choices>
  <Choices name="foci" toName="image" choice="multiple" model_current="$foci">
    <Choice value="none"/><Choice value="rim"/><Choice value="punctate"/>
  </Choices>
  <Rating name="quality" toName="image" maxRating="3"/>
</View>"""
SCHEMA = parse_label_config(CONFIG)
DDTI = Path(__file__).parents[2].parent / "shared" / "data" / "ddti"


def write(folder: Path, text: str, encoding: str = "utf-8", images: str = "a b c d e f") -> Path:
    for name in images.split():
        (folder / "images").mkdir(parents=True, exist_ok=True)
        (folder / "images" / f"{name}.png").write_bytes(b"")
    (folder / "labels.csv").write_text(text, encoding=encoding)
    return folder


GOOD = """file,label,foci,patient,site,remark,quality,true_label,mask,age
images/a.png,benign,none,p1,north,"one, two",3,malignant,masks/a.png,61
images/b.png,malignant,punctate|rim,p1,north,,,malignant,,62
images/c.png,,,p2,south,,,benign,,
images/d.png, benign ,none,,,,,,,
images/e.png,,,p2,,,,,,
"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_rows_labels_truth_and_task_data(tmp_path: Path, encoding: str) -> None:
    folder = write(tmp_path / "my data", GOOD, encoding)
    found = read(folder, SCHEMA, config_fields(CONFIG))
    assert found.problems == ()
    assert [row.line for row in found.rows] == [2, 3, 4, 5, 6]
    assert [row.group for row in found.rows] == ["p1", "p1", "p2", "images/d.png", "p2"]
    assert [row.recorded for row in found.rows] == [
        {"bom": ("benign",), "foci": ("none",), "quality": ("3",)},
        {"bom": ("malignant",), "foci": ("rim", "punctate")},
        {},
        {"bom": ("benign",), "foci": ("none",)},
        {},
    ]
    assert found.unlabelled == ("images/c.png", "images/e.png")
    assert found.truth["images/a.png"] == {"bom": ("malignant",), "foci": ("none",), "quality": ("3",)}
    assert found.truth["images/c.png"] == {"bom": ("benign",)}
    assert found.truth["images/d.png"] == {"bom": ("benign",), "foci": ("none",)}
    assert found.truth["images/e.png"] == {}
    first, *others = found.task_data()
    assert first == {
        "image": "/data/local-files/?d=my%20data/images/a.png",
        "file": "images/a.png",
        "label": "benign",
        "foci": "none",
        "patient": "p1",
        "site": "north",
        "remark": "one, two",
    }
    assert all(set(data) == set(first) for data in others)
    assert all(isinstance(value, str) for data in found.task_data() for value in data.values())
    path = parse_qs(urlsplit(first["image"]).query)["d"][0]
    assert (found.document_root / path).is_file()
    # What the backend will read from the task is what this module read from the file.
    for row, data in zip(found.rows, found.task_data(), strict=True):
        labels, problems = decode_current(SCHEMA, data)
        assert problems == ()
        assert labels == {name: value for name, value in row.recorded.items() if name != "quality"}


def test_truth_never_gets_into_task_data(tmp_path: Path) -> None:
    found = read(write(tmp_path, GOOD), SCHEMA, ("true_label", "remark"))
    assert "true_label" not in found.rows[0].cells
    assert not any(key.startswith("true_") for data in found.task_data() for key in data)


def test_recorded_labels_as_annotations_are_said_once(tmp_path: Path) -> None:
    found = read(write(tmp_path, GOOD), SCHEMA, config_fields(CONFIG))
    annotations = found.annotations(7)
    for row, data, plain in zip(found.rows, found.task_data(recorded=False), found.task_data(), strict=True):
        assert decode_current(SCHEMA, data)[0] == {}
        assert data == plain | {"label": "", "foci": ""}
        made = annotations.get(row.file, [{"result": [], "completed_by": 7}])
        assert [annotation["completed_by"] for annotation in made] == [7]
        assert decode_result(SCHEMA, made[0]["result"]).labels == row.recorded
    assert set(annotations) == {row.file for row in found.rows if row.recorded}


def test_bad_rows_are_named_and_left_out(tmp_path: Path) -> None:
    text = (
        "file,label,foci,patient,site\n"
        "images/a.png,benign,,p1,\n"
        "images/zzz.png,benign,,p1,\n"
        ",benign,,p1,\n"
        "images/a.png,malignant,,p1,\n"
        "../secret.png,benign,,p1,\n"
        "images/b.png,benign,,p1,north, by the sea\n"
        "\n"
        'images/c.png,"beni\ngn",,p1,\n'
        "images/d.png,malignant\n"
        "images/e.png,malignant,rim,p9,x,,\n"
        "images,malignant,rim,p9,x\n"
    )
    (tmp_path / "secret.png").write_bytes(b"")
    found = read(write(tmp_path / "data", text), SCHEMA)
    assert [row.file for row in found.rows] == [f"images/{name}.png" for name in "acde"]
    assert found.rows[2].recorded == {"bom": ("malignant",)}
    assert found.rows[0].recorded == {"bom": ("benign",)}
    expected = [
        "no column 'quality': control 'quality' has no labels",
        "line 3: column 'file': there is no 'images/zzz.png' in the folder. The row is left out",
        "line 4: column 'file' is empty",
        "line 5: column 'file': 'images/a.png' is already on line 2",
        "line 6: column 'file': '../secret.png' leaves the folder",
        "line 7: 6 cells for 5 columns (is a quote missing?)",
        "line 13: column 'file': there is no 'images' in the folder",
        "line 9, column 'label': 'beni\\ngn' is no class of control 'bom' (benign, malignant)",
    ]
    assert len(found.problems) == len(expected)
    for problem, part in zip(found.problems, expected, strict=True):
        assert part in problem


def test_values_without_a_class_are_counted_and_their_rows_kept(tmp_path: Path) -> None:
    text = (
        "file,label,foci,quality,true_label\n"
        "images/a.png,Benign?,none,2,benign\n"
        "images/b.png,Benign?,none|dots,4,unsure\n"
        "images/c.png,malignant,rim,1,\n"
    )
    found = read(write(tmp_path, text), SCHEMA)
    assert [row.recorded for row in found.rows] == [
        {"foci": ("none",), "quality": ("2",)},
        {},
        {"bom": ("malignant",), "foci": ("rim",), "quality": ("1",)},
    ]
    assert found.truth["images/a.png"]["bom"] == ("benign",)
    assert found.uncovered == {
        "label": {"Benign?": 2},
        "foci": {"none|dots": 1},
        "quality": {"4": 1},
        "true_label": {"unsure": 1},
    }
    assert found.task_data()[0]["label"] == "Benign?"  # the record is shown as it is
    assert "no column 'patient', which model_group names" in found.problems[0]
    assert any("line 2, column 'label': 'Benign?' is no class" in p and "2 rows" in p for p in found.problems)
    assert any("line 3, column 'foci': 'none|dots'" in p and "1 row " in p for p in found.problems)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file;label\nimages/a.png;benign\n", r"no column 'file'.*'file;label'.*separated by commas"),
        ("", "no column 'file'"),
        ("file,label,label\n", "more than one column 'label'"),
        ("file,diagnosis\nimages/a.png,benign\n", r"none of the label config's columns.*label, foci, quality"),
        ("file,label\nimages/zz.png,benign\n", r"no row that can be used(?s:.*)line 2.*there is no 'images/zz.png'"),
        ("file,label\n", "no row that can be used"),
    ],
)
def test_folders_of_no_use_say_why(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataFolderError, match=message):
        read(write(tmp_path, text), SCHEMA)


def test_missing_file_encoding_and_image_field(tmp_path: Path) -> None:
    with pytest.raises(DataFolderError, match=r"labels\.csv is missing"):
        read(tmp_path, SCHEMA)
    with pytest.raises(DataFolderError, match=r"not UTF-8 \(byte 25\)"):
        read(write(tmp_path, "file,label\nimages/a.png,böse\n", "latin-1"), SCHEMA)
    (tmp_path / "labels.csv").write_text("file,label\nimages/a.png," + "x" * 200_000)
    with pytest.raises(DataFolderError, match="line 2 is not CSV: field larger"):
        read(tmp_path, SCHEMA)
    with pytest.raises(DataFolderError, match=r'"\$file"'):
        read(write(tmp_path, GOOD), parse_label_config(CONFIG.replace("$image", "$file")))


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.integers(0, 31), st.integers(0, 3))
def test_samples_keep_whole_patients(patients: list[int], n: int, seed: int) -> None:
    rows = tuple(Row(i + 2, f"{i}.png", f"p{p}", {}, {}, {}) for i, p in enumerate(patients))
    whole = DataFolder(Path("/data/set"), SCHEMA, (), rows, (), {})
    sample = whole.sample(n, seed)
    assert sample.rows == whole.sample(n, seed).rows
    assert len(sample.rows) <= n
    groups = {row.group for row in sample.rows}
    assert sample.rows == tuple(row for row in rows if row.group in groups)
    sizes = [patients.count(p) for p in set(patients) if f"p{p}" not in groups]
    assert all(len(sample.rows) + size > n for size in sizes)  # nobody left out would have fitted


@pytest.mark.skipif(not DDTI.is_dir(), reason="the DDTI images are not beside this checkout")
def test_ddti() -> None:
    config = """<View><Image name="image" value="$image" model_group="$patient" model_site="$site"/>
      <Choices name="tirads" toName="image" model_current="$tirads">
        <Choice value="2"/><Choice value="3"/><Choice value="4a"/><Choice value="4b"/><Choice value="4c"/>
        <Choice value="5"/></Choices>
      <Choices name="calcium" toName="image" model_current="$calcifications"><Choice value="non"/>
        <Choice value="microcalcifications" alias="microcalcification"/></Choices></View>"""
    found = read(DDTI, parse_label_config(config))
    with (DDTI / "labels.csv").open(encoding="utf-8") as stream:
        lines = list(csv.DictReader(stream))
    assert len(found.rows) == len(lines) == 470
    assert sum("tirads" in row.recorded for row in found.rows) == sum(line["tirads"] != "" for line in lines)
    assert found.uncovered == {"calcifications": {"macrocalcifications": 38, "macrocalcification": 6}}
    assert sum(row.recorded.get("calcium") == ("microcalcification",) for row in found.rows) == 198
    assert found.truth == {row.file: row.recorded for row in found.rows}
    sample = found.sample(100, 0)
    assert 90 <= len(sample.rows) <= 100
    rest = {row.group for row in found.rows} - {row.group for row in sample.rows}
    assert len(rest) + len({row.group for row in sample.rows}) == 386
