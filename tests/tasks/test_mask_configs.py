"""The label configs with masks that are shipped, against the SDK and a real Label Studio, and the data they are for."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from label_studio_sdk.label_interface import LabelInterface
from PIL import Image

from demo.labelstudio import call
from tasks.codec import encode_why
from tasks.mask_codec import Patch, decode_masks, encode_masks
from tasks.schema import parse_label_config

ROOT = Path(__file__).parents[2]
NUCLEI = ROOT.parent / "shared" / "data" / "nuclei_dsb2018"
CONFIGS = [ROOT / f"docs/examples/{name}.xml" for name in ("nuclei", "thyroid-masks")]
PATCHES = (Patch(0, 8, 16, 16, 0.81, "look here"), Patch(40, 16, 24, 24, 0.64, "look here"))


def prediction(xml: str) -> dict[str, Any]:
    """A disc, two rectangles and the reason, for an image of 80 x 60."""
    schema = parse_label_config(xml)
    rows, columns = np.mgrid[:60, :80]
    masks = {"mask": ((rows - 30) ** 2 + (columns - 40) ** 2 < 200)[None]}
    result = encode_masks(schema, 60, 80, masks, {"mask": [0.93]}, PATCHES)
    return {"result": [*result, *encode_why(schema, "Why.")], "score": 0.1, "model_version": "v1-queue-order"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_everything_in_it_is_used_and_the_sdk_accepts_what_is_drawn(path: Path) -> None:
    xml = path.read_text()
    LabelInterface(xml).validate()
    schema = parse_label_config(xml)
    assert (schema.heads, schema.left_alone, schema.site_field) == ((), (), "site")
    assert [(head.name, head.kind, head.weight) for head in schema.masks] == [("mask", "brush", 1)]
    assert set(schema.roles) == {"why", "look", "scope", "flag"}
    assert schema.roles["scope"].classes == ("patches", "image")
    assert LabelInterface(xml).validate_prediction(prediction(xml), return_errors=True) == []


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_label_studio_takes_a_mask_and_rectangles_and_gives_them_back(path: Path, label_studio: Any) -> None:
    xml = path.read_text()
    project = call(
        label_studio.admin, "POST", "/api/projects", json={"title": f"Masks {path.stem}", "label_config": xml}
    )["id"]
    data = dict.fromkeys(("site", "patient"), "") | {"image": "/data/local-files/?d=none.png"}
    call(label_studio.admin, "POST", f"/api/projects/{project}/import", json=[{"data": data}])
    (task,) = call(label_studio.admin, "GET", "/api/tasks", params={"project": project})["tasks"]
    sent = prediction(xml)
    body = [{"task": task["id"], **sent}]
    answer = call(label_studio.admin, "POST", f"/api/projects/{project}/import/predictions", json=body)
    assert answer["created"] == 1
    (stored,) = call(label_studio.admin, "GET", f"/api/tasks/{task['id']}")["predictions"]
    assert stored["result"] == sent["result"]
    found = decode_masks(parse_label_config(xml), stored["result"], 60, 80)
    assert (found.patches, found.problems) == (PATCHES, ())
    assert found.masks["mask"].sum() == pytest.approx(np.pi * 200, rel=0.02)


def test_the_nuclei_have_masks_of_one_class_and_the_images_size() -> None:
    if not NUCLEI.exists():
        pytest.skip("nuclei_dsb2018 is not beside this checkout")
    (head,) = parse_label_config(CONFIGS[0].read_text()).masks
    with (NUCLEI / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {head.name, "site"} <= set(rows[0])
    for row in rows[::10]:
        with Image.open(NUCLEI / row["file"]) as image, Image.open(NUCLEI / row[head.name]) as mask:
            assert image.size == mask.size
            assert set(np.unique(np.asarray(mask)).tolist()) <= {0, 1}
