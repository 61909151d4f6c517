"""Probability files: read as pandas would read them, or refused with each fault and its line."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.probabilities import BadProbabilities, Probabilities, read
from tasks.schema import Head

BOM = Head("bom", "image", "single", ("benign", "malignant"), 0.9, False, None, None, required=True)
FOCI = Head("foci", "image", "multiple", ("none", "rim: soft"), 0.1, False, None, None, required=False)
NAMES = {
    "task": {str(number): [number] for number in range(1, 40)},
    "image": {"/a.png": [1], "/b.png": [2], "/twice.png": [3, 4]},
    "file": {f"{number}.png": [number] for number in range(1, 40)},
}
HEADER = "task,bom:benign,bom:malignant"


@pytest.fixture
def write(tmp_path: Path):
    def written(*lines: str) -> Path:
        path = tmp_path / "oof.csv"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return written


def faults(path: Path) -> list[str]:
    with pytest.raises(BadProbabilities) as caught:
        read(path, [BOM, FOCI], NAMES)
    return list(caught.value.faults)


def test_a_file_is_what_pandas_reads(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [(task, member) for task in rng.permutation(np.arange(1, 31)) for member in range(1 + task % 3)]
    p = rng.dirichlet([1, 1], len(rows)).round(4)
    table = pd.DataFrame(rows, columns=["task", "member"])
    table["site"] = "A"
    table["bom:malignant"], table["foci:none"], table["foci:rim: soft"] = p[:, 1], rng.random(len(p)), p[:, 0]
    table["bom:benign"] = p[:, 0]
    path = tmp_path / "oof.csv"
    table.sample(frac=1, random_state=0).to_csv(path, index=False, encoding="utf-8-sig")

    found = read(path, [BOM, FOCI], NAMES)
    assert found.left_alone == ("site",)
    found.save(tmp_path / "kept.npz")
    ids, blocks = Probabilities.load(tmp_path / "kept.npz").blocks()
    assert ids.tolist() == list(range(1, 31))
    assert sorted(np.concatenate([rows for rows, _ in blocks]).tolist()) == list(range(30))
    assert [members["bom"].shape[0] for _, members in blocks] == [1, 2, 3]
    for rows, members in blocks:
        for column, row in enumerate(rows):
            mine = table[table.task == ids[row]].sort_values("member")
            for head, columns in (("bom", ["bom:benign", "bom:malignant"]), ("foci", ["foci:none", "foci:rim: soft"])):
                assert np.allclose(members[head][:, column], mine[columns].to_numpy(), atol=1e-6)


@pytest.mark.parametrize(("key", "values"), [("image", ["/b.png", "/a.png"]), ("file", ["2.png", "1.png"])])
def test_tasks_by_their_image_or_file(write, key: str, values: list[str]) -> None:
    path = write(f"{key},bom:benign,bom:malignant", f"{values[0]},0.25,0.75", f"{values[1]},1,0")
    found = read(path, [BOM, FOCI], NAMES)
    assert found.tasks.tolist() == [1, 2] and found.heads["bom"].tolist() == [[1, 0], [0.25, 0.75]]
    assert list(found.heads) == ["bom"]


def test_every_fault_is_named_with_its_line(write) -> None:
    path = write(
        HEADER,
        "1,0.5,0.5",
        "99,0.5,0.5",
        "2,0.5,half",
        "3,0.5,0.6",
        "4,-0.5,1.5",
        "5,nan,1",
        "6,0.5",
        "",
        "1,0.4,0.6",
        ",0.5,0.5",
        "7,0.5004,0.5004",
    )
    assert faults(path) == [
        "line 3: no task of the project has the task '99'",
        "line 4: bom:malignant is 'half', which is no number",
        "line 5: the probabilities of 'bom' add up to 1.1 instead of 1",
        "line 6: bom:benign is -0.5, which is no probability",
        "line 6: bom:malignant is 1.5, which is no probability",
        "line 7: bom:benign is nan, which is no probability",
        "line 8: 2 cells where the header has 3",
        "line 10: task 1 came in line 2 already; several members of one task need a column 'member'",
        "line 11: no task of the project has the task ''",
    ]


def test_heads_classes_and_keys_are_checked_in_the_header(write) -> None:
    assert faults(write("task,image,bom:benign,bom:begnin,shape:round", "1,/a.png,1,0,0")) == [
        "line 1: one column must name the task: task, image, file; the file has task and image",
        "line 1: the column 'bom:begnin' is no control:class of the label config, which has: bom (benign, malignant); "
        "foci (none, rim: soft)",
        "line 1: the column 'shape:round' is no control:class of the label config, which has: bom (benign, malignant); "
        "foci (none, rim: soft)",
        "line 1: the classes 'malignant' of 'bom' have no column",
    ]
    assert faults(write("task,site", "1,A")) == ["line 1: no column holds probabilities, as 'bom:benign' would"]
    assert "comes twice" in faults(write("task,task,bom:benign,bom:malignant"))[0]
    assert faults(write(HEADER)) == ["the file has a header and no rows"]
    assert "one column must name the task" in faults(write(""))[0]


def test_ambiguous_images_repeated_members_and_other_texts(write, tmp_path: Path) -> None:
    path = write("image,bom:benign,bom:malignant", "/twice.png,1,0")
    assert faults(path) == ["line 2: several tasks have the image '/twice.png' (3, 4): name them by 'task'"]
    path = write("task,member,bom:benign,bom:malignant", "1,a,1,0", "1,b,1,0", "1,a,0,1")
    assert faults(path) == ["line 4: task 1 with the member 'a' came in line 2 already"]
    path = tmp_path / "latin.csv"
    path.write_bytes("task,bom:benign,bom:malignant\n1,1,0 \xb5\n".encode("latin-1"))
    assert "latin.csv is not UTF-8 text (byte 36)" in faults(path)[0]
    assert "no valid CSV" in faults(write(HEADER, '1,"0.5" x,0.5'))[0]


def test_only_the_first_faults_are_printed(write) -> None:
    with pytest.raises(BadProbabilities) as caught:
        read(write(HEADER, *["99,1,0"] * 30), [BOM], NAMES)
    assert len(caught.value.faults) == 30
    assert str(caught.value).splitlines()[-1] == "and 10 more"


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200))
def test_whatever_the_bytes_it_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "oof.csv"
    path.write_bytes(HEADER.encode() + b"\n" + content)
    try:
        assert len(read(path, [BOM], NAMES).tasks)
    except BadProbabilities as error:
        assert error.faults
