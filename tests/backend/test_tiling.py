"""`second-look tile` and `untile`: there and back, what a bad image costs, and what stays in one fold."""

import csv
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from typer.testing import CliRunner, Result

from backend.cli import app
from backend.learning.decode import decode_whole
from backend.settings import settings
from tasks.datafolder import read
from tasks.rle import encode_mask
from tasks.schema import parse_label_config

CONFIG = """<View><Image name="image" value="$image" model_group="$patient"/>
<BrushLabels name="tissue" toName="image"><Label value="tumour"/><Label value="stroma"/></BrushLabels>
<RectangleLabels name="look" toName="image" model_role="look"><Label value="look here"/></RectangleLabels>
<Choices name="scope" toName="image" model_role="scope">
  <Choice value="Rectangles" alias="patches"/><Choice value="All" alias="image"/></Choices></View>"""
Run = Callable[..., Result]
H, W = 70, 100


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images, two of one patient, the third nobody's and smaller than a tile; masks of the first and third."""
    folder = tmp_path / "slides"
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    rows = ["file,patient,note,tissue,true_tissue"]
    for name, patient, size in (("a.tif", "p1", (H, W)), ("b.png", "p1", (H, W)), ("c d.png", "", (20, 30))):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / "images" / name)
        mask = (rng.random(size) < 0.3).astype(np.uint8) * rng.integers(1, 3, size, dtype=np.uint8)
        Image.fromarray(mask).save(folder / "masks" / f"{name}.png")
        drawn = f"masks/{name}.png" if name != "b.png" else ""
        rows.append(f'images/{name},{patient},"one, two",{drawn},{drawn if name == "a.tif" else ""}')
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "config.xml").write_text(CONFIG)
    return folder


@pytest.fixture
def run(folder: Path) -> Run:
    config = ("--label-config", str(folder.parent / "config.xml"))
    return lambda *arguments: CliRunner().invoke(app, [*map(str, arguments), *config])


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_folder_becomes_a_folder_of_tiles_the_same_each_time(folder: Path, run: Run) -> None:
    out = folder.parent / "tiles"
    result = run("tile", folder, "--side", 32, "--overlap", 8, "--out", out, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found == {"folder": str(out), "images": 3, "tiles": 3 * 4 * 2 + 1, "problems": []}
    rows = table(out)
    assert list(rows[0])[:5] == ["file", "patient", "note", "tissue", "true_tissue"]
    assert {row["note"] for row in rows} == {"one, two"}
    # Who belongs to nobody is a group of its own, with all its tiles.
    assert {(row["tile_of"], row["patient"]) for row in rows} == {
        ("images/a.tif", "p1"),
        ("images/b.png", "p1"),
        ("images/c d.png", "images/c d.png"),
    }
    schema = parse_label_config(CONFIG)
    tiled, whole = read(out, schema), {row.file: row for row in read(folder, schema).rows}
    assert tiled.problems == () and len(tiled.rows) == len(rows)
    assert [sorted(row.masks) for row in tiled.rows] == [["tissue"]] * 12 + [[]] * 12 + [["tissue"]]
    for row, place in zip(tiled.rows, rows, strict=True):
        x, y, width, height = (int(place[f"tile_{name}"]) for name in ("x", "y", "width", "height"))
        window = np.s_[y : y + height, x : x + width]
        source = decode_whole(folder / place["tile_of"])
        assert (int(place["orig_height"]), int(place["orig_width"])) == source.shape[:2]
        np.testing.assert_array_equal(decode_whole(out / row.file), source[window])
        for truth in (False, True):
            if place["true_tissue" if truth else "tissue"]:
                mask = read(folder, schema).mask(whole[place["tile_of"]], "tissue", truth)
                np.testing.assert_array_equal(tiled.mask(row, "tissue", truth), mask[(..., *window)])
    before = digests(out)
    assert run("tile", folder, "--side", 32, "--overlap", 8, "--out", out).exit_code == 0
    assert digests(out) == before


def test_what_cannot_be_cut_is_named_and_the_rest_is_cut(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "images" / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(folder / "masks" / "c d.png.png")
    result = run("tile", folder, "--side", 64, "--out", folder.parent / "tiles", "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert (found["images"], found["tiles"]) == (2, 5)
    assert "line 4, column 'tissue': the mask 'masks/c d.png.png' is of no use" in found["problems"][0]
    assert found["problems"][1].startswith("labels.csv line 3: images/b.png: the image is damaged")
    assert [row["tissue"] != "" for row in table(folder.parent / "tiles")] == [True] * 4 + [False]
    monkeypatch.setenv("SECOND_LOOK_MAX_MEGAPIXELS", "0.0001")
    settings.cache_clear()
    result = run("tile", folder, "--side", 64, "--out", folder.parent / "none")
    settings.cache_clear()
    assert result.exit_code == 1
    assert "no image could be cut" in result.stderr and "more pixels than the limit of 100" in result.stderr
    assert not (folder.parent / "none" / "labels.csv").exists()


def test_dicom_becomes_png_and_its_mask_must_be_of_its_size(folder: Path, run: Run) -> None:
    scan = get_testdata_file("CT_small.dcm", download=False)
    assert isinstance(scan, str)
    for name, side in (("one", 128), ("two", 99)):
        (folder / "images" / f"{name}.dcm").write_bytes(Path(scan).read_bytes())
        Image.fromarray(np.ones((side, side), np.uint8)).save(folder / "masks" / f"{name}.png")
    rows = [f"images/{name}.dcm,p1,,masks/{name}.png," for name in ("one", "two")]
    (folder / "labels.csv").write_text("\n".join(["file,patient,note,tissue,true_tissue", *rows]))
    result = run("tile", folder, "--side", 64, "--out", folder.parent / "tiles", "--json")
    assert json.loads(result.stdout)["problems"] == [
        "labels.csv line 3, column 'tissue': the mask has 99 x 99 pixels, and the image 128 x 128. It is left out."
    ]
    tiled = read(folder.parent / "tiles", parse_label_config(CONFIG))
    assert [bool(row.masks) for row in tiled.rows] == [True] * 4 + [False] * 4
    assert tiled.mask(tiled.rows[0], "tissue")[0].all()


def test_the_group_of_an_image_without_one_is_the_image(folder: Path, run: Run) -> None:
    config, out = folder.parent / "config.xml", folder.parent / "tiles"
    config.write_text(CONFIG.replace(' model_group="$patient"', ""))
    result = run("tile", folder, "--side", 64, "--out", out)
    assert 'set model_group="$tile_of"' in result.stdout.replace("\n", " ")
    for field in ("tile_of", "slide"):
        config.write_text(CONFIG.replace("$patient", f"${field}"))
        result = run("tile", folder, "--side", 64, "--out", out)
        assert result.exit_code == 0 and "model_group" not in result.stdout.replace("which model_group names", "")
        assert {row[field] for row in table(out)} == {"images/a.tif", "images/b.png", "images/c d.png"}
        assert len({row.group for row in read(out, parse_label_config(config.read_text())).rows}) == 3


def test_folders_are_not_mixed_up(folder: Path, run: Run) -> None:
    tiles = folder.parent / "tiles"
    assert "is the folder that is read" in run("tile", folder, "--out", folder).stderr
    assert run("tile", folder, "--side", 64, "--out", tiles).exit_code == 0
    assert "it holds tiles already" in run("tile", tiles, "--out", folder.parent / "again").stderr
    assert "holds a data folder that is not of tiles" in run("tile", tiles, "--out", folder).stderr
    assert "--overlap takes 0 to 63" in run("tile", folder, "--side", 64, "--overlap", 64, "--out", tiles).stderr
    assert "labels.csv is missing" in run("tile", tiles.parent / "nowhere", "--out", tiles).stderr


def annotated(number: int, row: dict[str, str], masks: Any, **more: Any) -> dict[str, Any]:
    """A task of the export, marked whole; masks (2, h, w)."""
    size = {"original_width": masks.shape[2], "original_height": masks.shape[1]}
    result = [
        {"from_name": "tissue", "type": "brushlabels", "value": {"rle": encode_mask(mask * 255), "brushlabels": [name]}}
        | size
        for name, mask in zip(("tumour", "stroma"), masks, strict=True)
    ]
    result.append({"from_name": "scope", "type": "choices", "value": {"choices": ["image"]}})
    about = {"id": number, "result": result, "completed_by": {"id": 1, "email": "a@b.c"}, "updated_by": 1}
    about |= {"updated_at": "2026-01-01T00:00:00Z", "was_cancelled": False} | more
    return {"id": number, "data": {"image": "/data/x", "file": row["file"]}, "annotations": [about]}


def test_masks_of_tiles_become_the_masks_of_images(folder: Path, run: Run) -> None:
    tiles, out = folder.parent / "tiles", folder.parent / "whole"
    run("tile", folder, "--side", 32, "--overlap", 8, "--out", tiles)
    schema = parse_label_config(CONFIG)
    source = read(folder, schema)
    recorded = {row.file: source.mask(row, "tissue") for row in source.rows if row.masks}
    tasks = []
    for number, row in enumerate(table(tiles)):
        if row["tile_of"] in recorded:
            x, y, width, height = (int(row[f"tile_{name}"]) for name in ("x", "y", "width", "height"))
            tasks.append(annotated(number, row, recorded[row["tile_of"]][:, y : y + height, x : x + width]))
    # As synced from a storage, which knows the address alone; and one that was skipped.
    tasks[1]["data"] = {"image": f"/data/local-files/?d=tiles/{tasks[1]['data']['file'].replace(' ', '%20')}"}
    tasks[-1]["annotations"][0]["was_cancelled"] = True
    tasks += [{"id": 900, "data": {"image": "/data/upload/1/other.png"}, "annotations": []}, 7]
    tasks.append({"id": 901, "data": tasks[0]["data"], "annotations": [{"result": []}]})
    export = folder.parent / "export.json"
    export.write_text(json.dumps(tasks))
    result = run("untile", export, "--tiles", tiles, "--out", out, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["images"] == {"images/a.tif": 1.0}
    assert sorted(problem[:24] for problem in found["problems"]) == [
        "A task of the export has",
        "Task 900 is no tile of t",
        "Task 901 has no readable",
        "images/b.png: nobody rev",
        "images/c d.png: nobody r",
    ]
    (row,) = table(out)
    with Image.open(out / row["tissue"]) as image:
        values = np.asarray(image)
    np.testing.assert_array_equal((values == 1, values == 2), recorded["images/a.tif"])

    # Half of the tiles: the rest is background that nobody saw, and classes over each other are one.
    half = [task for task in tasks[:12] if "/0-" in str(task["data"])]
    half[0] = annotated(0, table(tiles)[0], np.ones((2, 32, 32), dtype=np.uint8))
    export.write_text(json.dumps(half))
    result = run("untile", export, "--tiles", tiles, "--out", out)
    assert "1 of them were not reviewed whole" in result.stdout.replace("\n", " ")
    assert "several classes of 'tissue': the last one is kept" in result.stdout.replace("\n", " ")
    assert 0.2 < float(table(out)[0]["reviewed"]) < 0.6


def test_what_is_no_export_is_named(folder: Path, run: Run) -> None:
    tiles, out, export = (folder.parent / name for name in ("tiles", "whole", "export.json"))
    run("tile", folder, "--side", 64, "--out", tiles)
    for text, says in (("{", "is no JSON"), ("{}", "is no list of tasks"), ("[]", "nothing was marked in any tile")):
        export.write_text(text)
        assert says in run("untile", export, "--tiles", tiles, "--out", out).stderr
    assert "labels.csv line 2 names no tile" in run("untile", export, "--tiles", folder, "--out", out).stderr
    assert "labels.csv is missing" in run("untile", export, "--tiles", out, "--out", out.parent / "x").stderr
