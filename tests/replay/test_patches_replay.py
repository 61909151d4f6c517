"""Replays of corrected patches: two sites of squares, of which one is inverted."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats
from typer.testing import CliRunner

from backend.cli import app
from backend.replay import patch_run
from backend.replay.material import MaterialError
from backend.replay.patch_choices import CHOICES
from backend.replay.patch_curves import differences, paired_p, summary
from backend.replay.patch_run import SMALL, Moment, corners, replay_patches
from backend.replay.sites import LONGEST, PATCH, Sites, site_called, sites, smaller
from tasks.datafolder import read
from tasks.schema import parse_label_config

CONFIG = """<View><Image name="image" value="$image" model_group="$patient" model_site="$site"/>
  <BrushLabels name="mask" toName="image"><Label value="square"/></BrushLabels></View>"""
SIDES = 70, 130  # of the images: two patches of 64 pixels beside each other fit


def write(folder: Path, site_of: list[str], more: str = "") -> Path:
    """Images of squares, bright at the site `north lab` and dark elsewhere, two to a patient."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = ["file,patient,site,mask"]
    for number, site in enumerate(site_of):
        image = rng.integers(90, 130, (*SIDES, 3), dtype=np.uint8)
        mask = np.zeros(SIDES, dtype=np.uint8)
        for _ in range(4):
            top, left = rng.integers(0, 50, 2)
            mask[top : top + 10, left : left + 10] = 1
        image[mask == 1] = 220 if site == "north lab" else 20
        Image.fromarray(image).save(folder / f"{number}.png")
        Image.fromarray(mask).save(folder / f"mask{number}.png")
        rows.append(f"{number}.png,{site}-{number // 2},{site},mask{number}.png")
    (folder / "labels.csv").write_text("\n".join(rows) + more)
    (folder / "config.xml").write_text(CONFIG)
    return folder


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("replay") / "squares", ["north lab"] * 8 + ["south"] * 8)


TINY = replace(SMALL, crop=32, tile=64, folds=2, steps=2)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Next to no training."""
    monkeypatch.setattr(patch_run, "SMALL", TINY)


@pytest.fixture(scope="module")
def first(squares: Path) -> patch_run._Loop:
    return patch_run._Loop(drawn(squares), TINY)


def drawn(folder: Path, seed: int = 0) -> Sites:
    return sites(read(folder, parse_label_config(CONFIG)), "north lab", "south", seed)


def test_sites_are_divided_by_patient_and_differ_by_seed(squares: Path) -> None:
    found = drawn(squares)
    parts = [found.learnt, found.kept, found.pool, found.tested]
    groups = [{picture.group for picture in part} for part in parts]
    assert sum(map(len, parts)) >= 12 and all(parts)
    assert all(not one & other for one in groups for other in groups if one is not other)
    assert all(picture.group.startswith("north") for picture in (*found.learnt, *found.kept))
    assert {picture.group for picture in drawn(squares, 1).pool} != groups[2]
    assert found.classes == ("square",) and found.pool[0].masks.shape == (1, *SIDES)


def test_large_images_are_made_smaller_with_their_masks() -> None:
    image = np.zeros((300, 2 * LONGEST, 3), dtype=np.uint8)
    image[:, LONGEST:] = 200
    masks = np.zeros((2, *image.shape[:2]), dtype=np.uint8)
    masks[0, :, LONGEST:] = 1
    masks[1, 0, 0] = 1  # a quarter of a pixel
    small_image, small_masks = smaller(image, masks, LONGEST)
    assert small_image.shape == (150, LONGEST, 3) and small_masks.shape == (2, 150, LONGEST)
    assert (small_masks[0] == (small_image[..., 0] > 100)).all() and not small_masks[1].any()
    assert smaller(image[:200, :200], masks[:, :200, :200], LONGEST)[0].shape == (200, 200, 3)


@pytest.mark.parametrize("name", CHOICES)
def test_only_what_was_chosen_is_reviewed_and_nothing_twice(name: str, first: patch_run._Loop) -> None:
    loop, found = first.branch(), first.sites
    rng = np.random.default_rng(0)
    taken = [np.zeros(picture.image.shape[:2], dtype=int) for picture in found.pool]
    for count in (3, 2):
        chosen = CHOICES[name](loop.ensemble, found, loop.spent, count, 64, rng)
        assert len(chosen) == count
        loop.correct(chosen)
        for image, patch in chosen:
            assert (patch.width, patch.height) == (PATCH, PATCH)
            taken[image][patch.y : patch.y + PATCH, patch.x : patch.x + PATCH] += 1
    assert max(one.max() for one in taken) == 1
    for one, reviewed in zip(taken, loop.reviewed[len(found.learnt) :], strict=True):
        assert (one == reviewed).all()
    assert all(reviewed.all() for reviewed in loop.reviewed[: len(found.learnt)])
    true = sum(int((one * picture.masks[0]).sum()) for one, picture in zip(taken, found.pool, strict=True))
    assert loop.foreground_pixels == true and loop.patches == 5
    assert not first.patches and not any(one.any() for one in first.reviewed[len(found.learnt) :])


@pytest.mark.usefixtures("quick")
def test_all_strategies_start_alike_and_go_up_to_the_budget(squares: Path) -> None:
    found = list(replay_patches(drawn(squares), ["random", "hybrid", "random+refit"], 2, TINY))
    assert [(name, moment.patches) for name, moment in found] == [
        (name, count) for name in ("random", "hybrid", "random+refit") for count in (0, 1, 2)
    ]
    assert len({(moment.dice, moment.source_dice) for _, moment in found if not moment.patches}) == 1
    last = dict(found)
    assert all(moment.seconds > 0 for moment in last.values())
    # The first choice at random is the same patch, whatever is trained afterwards.
    first = [moment.foreground_pixels for name, moment in found if moment.patches == 1 and name != "hybrid"]
    assert first[0] == first[1]
    with pytest.raises(KeyError):
        next(replay_patches(drawn(squares), ["best"], 2, TINY))


def test_what_is_too_thick_for_a_crop_is_looked_at_in_smaller_and_more_images(tmp_path: Path) -> None:
    folder = tmp_path / "discs"
    folder.mkdir()
    rows = ["file,patient,site,mask"]
    lines, columns = np.mgrid[:150, : 2 * LONGEST]
    for number in range(60):
        mask = (np.hypot(lines - 75, columns - 100) < 40).astype(np.uint8)  # 40 pixels thick in images of LONGEST
        Image.fromarray(mask * 200).convert("RGB").save(folder / f"{number}.png")
        Image.fromarray(mask).save(folder / f"mask{number}.png")
        rows.append(f"{number}.png,{number},{('north lab', 'south')[number % 2]},mask{number}.png")
    (folder / "labels.csv").write_text("\n".join(rows))
    thick = drawn(folder)
    assert thick.side == PATCH // 2 and {one.image.shape for one in thick.learnt} == {(38, LONGEST // 2, 3)}
    assert len(thick.learnt) + len(thick.kept) == len(thick.pool) + len(thick.tested) == 30
    for number in range(60):
        mask = (np.hypot(lines - 75, columns - 100) < 18).astype(np.uint8)
        Image.fromarray(mask).save(folder / f"mask{number}.png")
    thin = drawn(folder)
    assert thin.side == PATCH and {one.image.shape for one in thin.learnt} == {(75, LONGEST, 3)}
    assert [len(part) for part in (thin.learnt, thin.kept, thin.pool, thin.tested)] == [16, 4, 12, 8]


def test_clicks_are_the_corners_of_what_is_wrong() -> None:
    wrong = np.zeros((64, 64), dtype=bool)
    assert corners(wrong) == 0
    wrong[10:20, 10:30] = True
    assert corners(wrong) == 4
    wrong[40:50, 10:30] = True
    assert corners(wrong) == 8


def moments(values: list[float]) -> dict[int, list[Moment]]:
    return {
        seed: [Moment(0, 0.3, 0.9), Moment(10, value, 0.8, 20 + seed, 500, 3.0)] for seed, value in enumerate(values)
    }


def test_summaries_have_intervals_and_a_paired_test() -> None:
    ours, theirs = [0.7, 0.8, 0.75, 0.9], [0.6, 0.75, 0.7, 0.7]
    found = summary("hybrid+refit", moments(ours), moments(theirs))
    assert (found["start"], found["seeds"], found["patches"]) == ("refit", 4, [0, 10])
    assert found["dice"][0] == [0.3, 0.3, 0.3] and found["dice"][1][0] == pytest.approx(np.mean(ours))
    expected = stats.t.interval(0.95, 3, np.mean(ours), stats.sem(ours))
    assert found["dice"][1][1:] == pytest.approx(expected)
    assert found["clicks"][1][0] == pytest.approx(21.5)
    assert found["p"] == pytest.approx(stats.ttest_rel(ours, theirs).pvalue)
    assert found["over_foreground_random"][0] == pytest.approx(np.mean(ours) - np.mean(theirs))
    alone = summary("hybrid", moments([0.7]), moments([0.6]))
    assert alone["p"] is None and alone["over_foreground_random"] is None and alone["start"] == "warm"
    assert summary("foreground-random", moments(theirs), None)["p"] is None
    assert differences(moments(ours), {2: moments(theirs)[2]}, 10) == [pytest.approx(0.05)]
    assert paired_p([0.0, 0.0]) is None and paired_p([0.1, 0.1]) == 0.0


@pytest.mark.usefixtures("quick")
def test_the_command_prints_a_line_for_each_strategy_or_a_table(squares: Path) -> None:
    common = ["simulate", str(squares), "--label-config", str(squares / "config.xml"), "--source", "NORTH", "--target"]
    done = CliRunner().invoke(
        app, [*common, "sou", "--strategies", "hybrid,foreground_random", "--seeds", "2", "--budget", "1", "--json"]
    )
    assert done.exit_code == 0, done.output
    hybrid, rival = (json.loads(line) for line in done.stdout.splitlines())
    assert (hybrid["strategy"], rival["strategy"], hybrid["seeds"]) == ("hybrid", "foreground-random", 2)
    assert (hybrid["source"], hybrid["target"], hybrid["start"]) == ("north lab", "south", "warm")
    assert hybrid["patches"] == [0, 1] and hybrid["p"] is None  # no 10 patches
    for figure in ("dice", "source_dice", "clicks", "foreground_pixels", "seconds"):
        assert [len(value) for value in hybrid[figure]] == [3, 3]
    assert hybrid["dice"][0] == rival["dice"][0] and hybrid["clicks"][0] == [0, 0, 0]
    done = CliRunner().invoke(app, [*common, "south", "--strategies", "random", "--budget", "0"])
    assert done.exit_code == 0 and "random" in done.output and "images of south that" in done.output


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            [],
            "name the sites with --source and --target: the column 'site' has 'lonely' with 1 image, 'north",
        ),
        (["--source", "north"], "name the sites with --source and --target"),
        (["--source", "north", "--target", "west"], "--target 'west' is no site with masks"),
        (["--source", "north", "--target", "o"], "--target 'o' is in the names of several sites"),
        (["--source", "north", "--target", "lonely"], "'lonely' has 1 image with masks, of one patient"),
        (["--source", "north", "--target", "bare"], "--target 'bare' is no site with masks"),
        (["--source", "north", "--target", "north"], "name two sites"),
        (["--source", "north", "--target", "south", "--strategies", "best"], "no strategy 'best' for masks"),
        (["--source", "north", "--target", "south", "--noise", "0.1"], "are for labels"),
    ],
)
def test_what_cannot_be_replayed_is_said_in_a_sentence(more: list[str], said: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "squares", ["north lab"] * 4 + ["south"] * 3 + ["lonely"], "\n0.png,x,bare,\n")
    (folder / "extra.png").write_bytes((folder / "0.png").read_bytes())
    with (folder / "labels.csv").open("a") as lines:
        lines.write("extra.png,x,bare,\n")
    done = CliRunner().invoke(app, ["simulate", str(folder), "--label-config", str(folder / "config.xml"), *more])
    assert done.exit_code == 1, done.output
    assert said in done.output and "Traceback" not in done.output


def test_folders_without_masks_or_sites_say_so(tmp_path: Path) -> None:
    folder = write(tmp_path / "squares", ["north lab"] * 4)
    (folder / "labels.csv").write_text("file,mask\n0.png,\n")
    with pytest.raises(MaterialError, match="no row has a mask"):
        site_called(read(folder, parse_label_config(CONFIG)), "north", "source")
    (folder / "labels.csv").write_text("file,mask\n0.png,mask0.png\n")
    nameless = read(folder, parse_label_config(CONFIG.replace('model_site="$site"', "")))
    with pytest.raises(MaterialError, match="names no column in model_site"):
        site_called(nameless, "north", "source")
    labels = tmp_path / "labels.xml"
    labels.write_text(
        '<View><Image name="i" value="$image"/><Choices name="c" toName="i"><Choice value="a"/><Choice value="b"/>'
        "</Choices></View>"
    )
    arguments = ["simulate", str(folder), "--label-config", str(labels), "--source", "a", "--target", "b"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1 and "has no BrushLabels or PolygonLabels" in done.output
    done = CliRunner().invoke(app, ["simulate", "--source", "a", "--target", "b"])
    assert done.exit_code == 1 and "name a data folder" in done.output
