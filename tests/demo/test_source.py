"""Which tasks of a demo come with their masks."""

from pathlib import Path

from PIL import Image

from demo.source import source
from tasks import datafolder
from tasks.datafolder import DataFolder
from tasks.schema import parse_label_config

EXAMPLE = (Path(__file__).parents[2] / "docs" / "examples" / "nuclei.xml").read_text()


def folder(path: Path, sites: str, config: str = EXAMPLE) -> DataFolder:
    """A row a letter, which is its site; lower case: without a mask."""
    Image.new("1", (8, 8), 1).save(path / "mask.png")
    lines = ["file,site,bom,mask"]
    for number, site in enumerate(sites):
        Image.new("L", (8, 8)).save(path / f"{number}.png")
        lines.append(f"{number}.png,{site.upper()},benign,{'mask.png' if site.isupper() else ''}")
    (path / "labels.csv").write_text("\n".join(lines))
    return datafolder.read(path, parse_label_config(config))


def test_the_site_with_the_most_masks_is_the_source(tmp_path: Path) -> None:
    found, said = source(folder(tmp_path, "ABBbCcccc"))
    assert [row.file for row in found.rows] == ["1.png", "2.png"]
    assert said == "2 of 9 tasks come with their masks on record (of 'B')"
    assert set(found.annotations(7)) == {"1.png", "2.png"}


def test_of_a_site_that_is_most_of_all_only_a_quarter_of_all(tmp_path: Path) -> None:
    found, _ = source(folder(tmp_path, "ABBBBBBBBBBB"))
    assert len(found.rows) == 3 and {row.cells["site"] for row in found.rows} == {"B"}


def test_of_one_site_a_quarter(tmp_path: Path) -> None:
    found, said = source(folder(tmp_path, "A" * 10))
    assert len(found.rows) == 2
    assert said == "2 of 10 tasks come with their masks on record (drawn at random)"


def test_where_no_masks_are_learnt_nothing_is_annotated(tmp_path: Path) -> None:
    config = """<View><Image name="image" value="$image" model_site="$site"/>
    <Choices name="bom" toName="image"><Choice value="benign"/><Choice value="malignant"/></Choices></View>"""
    found, _ = source(folder(tmp_path, "AAB", config))
    assert found.rows == ()
