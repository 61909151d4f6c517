"""What the phantom folder holds: labels, truth, masks, and features that can be measured in the pixels."""

import csv
import itertools
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import uniform_filter
from sklearn.metrics import roc_auc_score

from demo.nodule import Nodule, grow_nodule
from demo.phantoms import CLASSES, FolderTaken, _with_errors, write_phantoms
from demo.tirads import Ceiling, Features, level
from demo.ultrasound import SITES, Site, grow_neck, scan
from tasks import datafolder
from tasks.schema import parse_label_config

IMAGES = 120
Row = dict[str, str]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ceiling, list[tuple[int, int]]]:
    folder = tmp_path_factory.mktemp("phantoms")
    calls: list[tuple[int, int]] = []
    reached = write_phantoms(folder, IMAGES, seed=7, progress=lambda done, of: calls.append((done, of)))
    return folder, reached, calls


@pytest.fixture(scope="module")
def folder(written: tuple[Path, Ceiling, list[tuple[int, int]]]) -> Path:
    return written[0]


@pytest.fixture(scope="module")
def rows(folder: Path) -> list[Row]:
    return read_labels(folder)


def read_labels(folder: Path) -> list[Row]:
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_row_has_its_image_and_a_mask_of_its_size(folder: Path, rows: list[Row]) -> None:
    assert len(rows) == IMAGES == len({row["file"] for row in rows})
    sizes = {site.name: (site.width, site.height) for site in SITES}
    for row in rows:
        with Image.open(folder / row["file"]) as image, Image.open(folder / row["mask"]) as mask:
            assert image.mode == "L"
            assert mask.mode == "1"
            assert image.size == mask.size == sizes[row["site"]]
            assert 0.02 < np.asarray(mask).mean() < 0.3
    assert sum(len(data) for data in contents(folder).values()) < IMAGES * 65_000


def test_the_masks_are_read_under_their_label_config(folder: Path) -> None:
    config = Path(__file__).parents[2] / "docs" / "examples" / "thyroid-masks.xml"
    read = datafolder.read(folder, parse_label_config(config.read_text()))
    assert len(read.rows) == IMAGES and read.problems == ()
    row = read.rows[0]
    with Image.open(folder / row.cells["mask"]) as mask:
        np.testing.assert_array_equal(read.mask(row, "mask")[0] != 0, np.asarray(mask))


def test_columns_and_classes_are_those_of_the_label_config(rows: list[Row]) -> None:
    names = ["bom", "tirads", "composition", "echogenicity", "shape", "margin", "foci"]
    assert list(rows[0]) == ["file", *names, "patient", "site", "mask", *(f"true_{name}" for name in names)]
    assert list(CLASSES) == names
    for row in rows:
        for name in names:
            for column in (name, f"true_{name}"):
                ticked = row[column].split("|")
                assert set(ticked) <= set(CLASSES[name])
                assert name == "foci" or len(ticked) == 1
                assert "none" not in ticked or len(ticked) == 1


def test_the_true_level_follows_from_the_true_features(rows: list[Row]) -> None:
    for row in rows:
        features = Features(
            *(row[f"true_{name}"] for name in ("composition", "echogenicity", "shape", "margin")),
            foci=tuple(row["true_foci"].split("|")),
        )
        assert row["true_tirads"] == level(features)


def test_one_label_in_twenty_is_wrong_in_each_column(rows: list[Row]) -> None:
    wrong = {name: {row["file"] for row in rows if row[name] != row[f"true_{name}"]} for name in CLASSES}
    assert {name: len(files) for name, files in wrong.items()} == dict.fromkeys(CLASSES, round(0.05 * IMAGES))
    assert len({frozenset(files) for files in wrong.values()}) == len(CLASSES)


def test_wrong_levels_are_near_the_true_one(tmp_path: Path) -> None:
    truth = [{name: classes[row % len(classes)] for name, classes in CLASSES.items()} for row in range(20_000)]
    off = [
        abs(int(row["tirads"][-1]) - int(true["tirads"][-1]))
        for row, true in zip(_with_errors(truth, seed=1), truth, strict=True)
        if row["tirads"] != true["tirads"]
    ]
    assert len(off) == 1000
    assert set(off) == {1, 2}
    assert 0.8 < off.count(1) / len(off) < 0.9


def test_a_patient_has_one_nodule_one_site_and_different_views(folder: Path, rows: list[Row]) -> None:
    patients: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        patients[row["patient"]].append(row)
    assert max(len(views) for views in patients.values()) == 4
    for views in patients.values():
        for column in ("site", *(f"true_{name}" for name in CLASSES)):
            assert len({row[column] for row in views}) == 1
        assert len({(folder / row["file"]).read_bytes() for row in views}) == len(views)
        assert len({(folder / row["mask"]).read_bytes() for row in views}) == len(views)


def test_the_returned_ceiling_is_that_of_the_true_columns(
    written: tuple[Path, Ceiling, list[tuple[int, int]]], rows: list[Row]
) -> None:
    malignant = [row["true_bom"] == "malignant" for row in rows]
    levels = [int(row["true_tirads"].removeprefix("TR")) for row in rows]
    assert written[1].realised == pytest.approx(roc_auc_score(malignant, levels))
    assert 0.3 < np.mean(malignant) < 0.5


def test_progress_counts_every_image(written: tuple[Path, Ceiling, list[tuple[int, int]]]) -> None:
    assert written[2] == [(done, IMAGES) for done in range(1, IMAGES + 1)]


def test_the_same_seed_gives_the_same_bytes_and_a_longer_run_the_same_images(tmp_path: Path) -> None:
    write_phantoms(tmp_path / "one", 20, seed=4)
    write_phantoms(tmp_path / "two", 20, seed=4)
    write_phantoms(tmp_path / "more", 26, seed=4)
    write_phantoms(tmp_path / "other", 20, seed=5)
    one, more, other = contents(tmp_path / "one"), contents(tmp_path / "more"), contents(tmp_path / "other")
    assert one == contents(tmp_path / "two")
    pictures = {name: data for name, data in one.items() if name.endswith(".png")}
    assert len(pictures) == 40
    assert all(more[name] == data for name, data in pictures.items())
    assert not any(other[name] == data for name, data in pictures.items() if name.startswith("images"))


def test_a_folder_of_ours_is_written_anew_and_any_other_is_refused(tmp_path: Path) -> None:
    ours = tmp_path / "ours"
    write_phantoms(ours, 5, seed=0)
    write_phantoms(ours, 3, seed=1)
    assert len(read_labels(ours)) == 3 == len(list((ours / "images").iterdir()))

    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "labels.csv").write_text("file\nprecious.png\n")
    with pytest.raises(FolderTaken, match=r"theirs is not empty and was not written by"):
        write_phantoms(theirs, 3, seed=0)
    assert [path.name for path in theirs.iterdir()] == ["labels.csv"]
    with pytest.raises(FolderTaken, match="is a file"):
        write_phantoms(theirs / "labels.csv", 3, seed=0)


def test_impossible_numbers_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 or more, not 0"):
        write_phantoms(tmp_path / "none", 0, seed=0)
    with pytest.raises(ValueError, match="0 or more, not -1"):
        write_phantoms(tmp_path / "none", 1, seed=-1)
    assert not (tmp_path / "none").exists()


def view(features: Features, site: Site, seed: int) -> tuple[np.ndarray, np.ndarray, Nodule]:
    """The same neck and nodule, whatever the site: only what the test changes differs."""
    body = np.random.default_rng([seed, 0])
    neck, nodule = grow_neck(body), grow_nodule(features, body)
    pixels, mask = scan(neck, nodule, site, np.random.default_rng([seed, 1]))
    return pixels.astype(float), mask, nodule


PLAIN = Features("solid", "hypoechoic", "wider", "ill-defined", ("none",))


def test_sites_differ_in_size_gain_and_resolution() -> None:
    brightness, length = [], []
    for site in SITES:
        views = [view(PLAIN, site, seed)[0] for seed in range(6)]
        middle = slice(site.height // 2 - 20, site.height // 2 + 20)
        brightness.append(np.mean(views))
        length.append(site.pitch * np.mean([correlation_length(pixels[middle, 30:-30]) for pixels in views]))
    assert len({(site.width, site.height) for site in SITES}) == 3
    assert brightness[1] > brightness[0] + 10 > brightness[2] + 20  # B is the brightest, C the darkest
    assert length[2] > 1.25 * length[0] > 1.25 * length[1]  # C blurs most, in mm


def correlation_length(part: np.ndarray) -> float:
    """Lateral shift in pixels at which the speckle's autocorrelation has fallen to a half."""
    grain = part - uniform_filter(part, 15)
    power = [float((grain[:, : -step or None] * grain[:, step:]).mean()) for step in range(8)]
    below = next(step for step in range(8) if power[step] < power[0] / 2)
    return below - (power[0] / 2 - power[below]) / (power[below - 1] - power[below])


def darkest_column(pixels: np.ndarray, where: np.ndarray) -> float:
    return min(pixels[where[:, column], column].mean() for column in np.flatnonzero(where.sum(0) > 10))


@pytest.mark.parametrize("site", SITES, ids=lambda site: site.name[0])
def test_features_can_be_read_off_the_pixels(site: Site) -> None:
    def inside(features: Features) -> float:
        return float(np.mean([np.median(p[m]) for p, m, _ in (view(features, site, s) for s in range(4))]))

    shades = [
        inside(Features("cystic" if shade == "anechoic" else "solid", shade, "wider", "smooth", ("none",)))
        for shade in ("anechoic", "very hypoechoic", "hypoechoic", "iso or hyperechoic")
    ]
    assert all(darker + 12 < brighter for darker, brighter in itertools.pairwise(shades))

    for seed in range(4):
        for shape, taller in (("wider", False), ("taller", True)):
            _, mask, _ = view(Features("solid", "hypoechoic", shape, "smooth", ("none",)), site, seed)
            width, height = np.ptp(np.flatnonzero(mask.any(0))), np.ptp(np.flatnonzero(mask.any(1)))
            assert (height > 1.1 * width) if taller else (width > 1.1 * height)

        plain, mask, _ = view(Features("solid", "hypoechoic", "wider", "smooth", ("none",)), site, seed)
        dots, _, _ = view(Features("solid", "hypoechoic", "wider", "smooth", ("punctate",)), site, seed)
        coarse, _, _ = view(Features("solid", "hypoechoic", "wider", "smooth", ("macrocalcifications",)), site, seed)
        below = np.maximum.accumulate(mask, axis=0) & ~mask
        assert np.percentile(dots[mask], 97) > np.percentile(plain[mask], 97) + 20
        assert darkest_column(coarse, below) < 0.6 * darkest_column(plain, below)  # a shadow
