"""What people read of a project of masks alone: its figures beside brute force, its pages and commands."""

import base64
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser
from typer.testing import CliRunner

from backend import regions
from backend.cli import app
from backend.ending import stop_if_enough
from backend.replay.label_studio import PROJECT
from backend.report import cases
from backend.report.facts import gather
from backend.report.page import render
from backend.settings import settings
from backend.telemetry import Telemetry
from tasks.schema import parse_label_config
from tasks.tables import Project, Published, Version
from tests.backend.squares import CONFIG, HEIGHT, SCHEMA, WIDTH, HandDrawn, Squares, as_result, moved, rectangle, scope

WRONG = (3, 9)  # masks on record that are wrong in a real loop
LARGER = 688.5  # A4 less its margins
OVERHANG = f"""() => [...document.querySelectorAll('table, figure, img')]
    .map(part => part.getBoundingClientRect().right).filter(right => right > {LARGER})"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> HandDrawn:
    """Version 1 draws badly and version 2 better; people reviewed three tasks in between, one of them unreadable."""
    made = HandDrawn(tmp_path_factory.mktemp("drawn"))
    made.leave(1, moved(made.masks, 6))
    made.label_studio.answer(2, [*made.drawn(2), rectangle(0, 0, 16, 12), rectangle(20, 0, 8, 12), scope("patches")])
    made.label_studio.answer(4, [*made.drawn(4), scope("image")])
    (region,) = made.drawn(6)
    made.label_studio.answer(6, [region | {"original_width": 2 * WIDTH}, scope("image")])
    made.look()
    made.leave(2, moved(made.masks, 1), quality=dict(zip(learnt(made)[:2], (0.2, 0.05), strict=True)))
    return made


@pytest.fixture(scope="module")
def facts(world: HandDrawn) -> dict[str, Any]:
    return gather(world.store, world.settings, PROJECT)


def learnt(world: HandDrawn) -> list[int]:
    """Tasks with a mask on record outside the hold-out; nobody has reviewed one, and the first two look wrong."""
    return [task for task, fold in sorted(world.folds().items()) if task % 2 == 1 and fold != -1]


def dice(drawn: np.ndarray, truth: np.ndarray) -> float:
    return float(2 * (drawn & truth).sum() / (drawn.sum() + truth.sum()))


def test_dice_before_and_after_is_told_per_centre(world: HandDrawn, facts: dict[str, Any]) -> None:
    held = [task for task, fold in world.folds().items() if fold == -1 and task % 2 == 1]
    found = facts["masks"]["before_and_after"]
    assert (found["first"], found["in_force"], found["classes"]) == (1, 2, ["square"])
    assert [row["centre"] for row in found["rows"]] == [None, "a"]  # those of b carry no mask
    for row in found["rows"]:
        assert row["n"] == len(held) and row["adjudicated"] == 0
        for moment, pixels in (("before", 6), ("after", 1)):
            each = [dice(moved(world.masks, pixels)[task - 1], world.masks[task - 1]) for task in held]
            assert row["figures"]["square"][moment] == pytest.approx(np.mean(each))
    assert facts["control"] is None and facts["evidence"] is None and facts["before_and_after"] is None
    assert [row["dice"] for row in facts["versions"]] == [{"mask": 0.1}, {"mask": 0.2}]


def test_what_was_reviewed_is_counted(world: HandDrawn, facts: dict[str, Any]) -> None:
    found = facts["masks"]
    assert (found["marked"], found["by_people"]) == (43, 3)
    assert found["spent"] == {"patches": 2, "images": 2}
    patches = (16 * 12 + 8 * 12) / (HEIGHT * WIDTH)
    assert found["trusted"] == pytest.approx((patches + 1) / 2)
    (problem,) = found["problems"]["tasks"]
    assert problem["task"] == 6 and "was drawn on an image of 128 x 48 pixels" in " ".join(problem["problems"])
    (person,) = facts["annotators"]
    assert person["reviews"] == person["labelled"] == 3  # nothing had been suggested


def test_masks_that_look_wrong_are_named_the_worst_first(world: HandDrawn, facts: dict[str, Any]) -> None:
    found = facts["masks"]["suspects"]
    assert (found["count"], found["recorded"]) == (2, len(learnt(world)))
    assert [(row["task"], row["class"], row["quality"]) for row in found["tasks"]] == [
        (learnt(world)[1], "square", pytest.approx(0.05)),
        (learnt(world)[0], "square", pytest.approx(0.2)),
    ]
    assert [row["doubt"] for row in found["tasks"]] == pytest.approx([1 - 0.05 / 0.8, 1 - 0.2 / 0.8])


def test_the_worst_cases_are_pictures_in_the_page(world: HandDrawn, facts: dict[str, Any]) -> None:
    worst = facts["masks"]["worst"]
    assert len(worst) == 6 and [row["dice"] for row in worst] == sorted(row["dice"] for row in worst)
    for case in worst:
        pictures = {
            name: np.asarray(Image.open(io.BytesIO(base64.b64decode(case[name].partition(",")[2]))))
            for name in ("image", "record", "model", "unsure")
        }
        assert all(picture.shape[:2] == (HEIGHT, WIDTH) for picture in pictures.values())
        mask = world.masks[case["task"] - 1]
        np.testing.assert_array_equal(pictures["record"] == 255, np.repeat(mask[..., None], 3, axis=2))
        drawn = moved(mask[None], 1)[0]
        np.testing.assert_array_equal(pictures["model"] == 255, np.repeat(drawn[..., None], 3, axis=2))
        assert pictures["image"][mask].mean() > 100 > pictures["image"][~mask].mean()
        assert (pictures["unsure"] == 128).all()  # the root of a quarter
        assert case["dice"] == pytest.approx(dice(drawn, mask))


def test_classes_are_told_apart_by_colour_and_what_nobody_reviewed_is_grey() -> None:
    two = CONFIG.replace('<Label value="square"/>', '<Label value="gland"/><Label value="nodule"/>')
    schema = parse_label_config(two)
    masks = np.zeros((2, 4, 6), dtype=bool)
    masks[0, :2, :4] = masks[1, 1, :2] = True
    reviewed = np.ones((4, 6), dtype=np.uint8)
    reviewed[3] = 0
    picture = cases.coloured(schema, masks, reviewed)
    found = {
        name: tuple(int(code[at : at + 2], 16) for at in (1, 3, 5)) for name, code in cases.colours(schema).items()
    }
    for row in range(4):
        for column in range(6):
            wanted = (80, 80, 80) if row == 3 else (0, 0, 0)
            wanted = found["gland"] if masks[0, row, column] else wanted
            wanted = found["nodule"] if masks[1, row, column] else wanted
            assert tuple(picture[row, column].tolist()) == wanted


def test_a_browser_shows_the_masks_on_a_phone_and_in_print(
    world: HandDrawn, facts: dict[str, Any], browser: Browser, tmp_path: Path
) -> None:
    file, asked = tmp_path / "report.html", list[str]()
    file.write_text(render(facts), encoding="utf-8")
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.on("request", lambda request: asked.append(request.url) if not request.url.startswith("data:") else None)
    page.goto(file.as_uri())
    assert page.locator("img").count() == 4 * 6 and asked == [file.as_uri()]
    assert page.evaluate("[...document.images].every(image => image.naturalWidth === 64)")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    text = page.locator("main").inner_text()
    for sentence in ("Worst cases of the hold-out", f"2 of {len(learnt(world))} (", "2 patches and 2 whole images"):
        assert sentence in text
    page.set_viewport_size({"width": 688, "height": 970})
    page.emulate_media(media="print")
    assert page.evaluate(OVERHANG) == []


def test_every_command_reads_a_project_of_masks(
    world: HandDrawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECOND_LOOK_STATE_DIR", str(world.settings.state_dir))
    monkeypatch.setenv("COLUMNS", "200")
    settings.cache_clear()

    def run(*words: str) -> str:
        result = CliRunner().invoke(app, [*words])
        assert result.exit_code == 0, result.output
        return result.output

    first, second = learnt(world)[:2]
    text = run("status")
    for line in (
        "masks in 43 images, of people in 3; reviewed: 2 patches and 2 whole images",
        f"masks on record that look wrong: 2 of {len(learnt(world))}, worst first: tasks {second}, {first}",
        "task 6 ",
        "square",
    ):
        assert line in text
    assert json.loads(run("status", "--json"))["projects"][0]["masks"]["spent"] == {"patches": 2, "images": 2}
    assert "0.200" in run("models")
    run("rank")
    assert json.loads(run("report", "--json", "--out", str(tmp_path / "report.html")))["masks"]["marked"] == 43
    assert b"second_look_model_version" in Telemetry(world.settings, world.store).exposition()
    settings.cache_clear()


def test_enough_is_judged_without_labels(world: HandDrawn) -> None:
    """All criteria are looked at; three trainings too few, nothing says it is enough."""
    tuned = world.settings.model_copy(update={"stop": "auto"})
    assert not stop_if_enough(world.store, world.registry, tuned, PROJECT, thorough=True)


def test_before_anything_is_learnt_it_is_said_why(tmp_path: Path) -> None:
    world = Squares(tmp_path, marked=2, count=12)
    HandDrawn.look(world)  # type: ignore[arg-type]
    page = render(gather(world.store, world.settings, PROJECT))
    assert "Nothing is learnt of mask yet: it takes 5 marked images outside the hold-out, and 2 are there." in page
    assert "no model drew masks" in page


def test_a_version_put_in_force_again_is_judged_by_what_is_marked_now(tmp_path: Path) -> None:
    world = HandDrawn(tmp_path, count=40)
    world.leave(1, moved(world.masks, 2))
    held = [task for task, fold in world.folds().items() if fold == -1]
    for task in held:
        world.label_studio.answer(task, [*as_result(moved(world.masks, 2)[task - 1]), scope("image")])
    world.look()
    world.leave(2, world.masks)
    again = world.registry.version(PROJECT, 3)
    shutil.copytree(world.registry.version(PROJECT, 1), again)
    with world.store.begin() as session:
        verdict = {"takes_over": True, "of": 1, "reason": "v1 put in force by ann: it was right"}
        about = {"created_at": 3e9, "seconds": 1.0, "schema": SCHEMA.fingerprint(), "labels": 40, "metrics": {}}
        session.add(Version(project_id=PROJECT, number=3, verdict=verdict, **about))
        session.get_one(Project, PROJECT).version = 3
    found = gather(world.store, world.settings, PROJECT)["masks"]
    row, right = found["before_and_after"]["rows"][0], moved(world.masks, 2)
    figure = pytest.approx(np.mean([dice(world.masks[task - 1], right[task - 1]) for task in held]))
    assert (row["n"], row["adjudicated"]) == (len(held), len(held))
    assert row["figures"]["square"]["before"] == row["figures"]["square"]["after"] == 1
    assert [(row["version"], row["dice"]) for row in found["curve"]] == [(1, {"mask": 1}), (2, {"mask": figure})]


def test_doubted_masks_come_first_in_a_real_loop(tmp_path: Path) -> None:
    """Two of twelve recorded masks are exchanged for those of other images."""
    world = Squares(tmp_path, marked=0)
    world.settings = world.settings.model_copy(update={"random_slots": False})
    for task in range(1, 13):
        mask = np.roll(world.masks[task - 1], (24, 32), (0, 1)) if task in WRONG else world.masks[task - 1]
        world.record(task, as_result(mask))
    world.cycle()
    with world.store.begin() as session:
        order = session.query(Published).order_by(Published.rank).all()
    assert {row.task_id for row in order[:2]} == set(WRONG)
    found = gather(world.store, world.settings, PROJECT)["masks"]["suspects"]
    assert {row["task"] for row in found["tasks"][:2]} == set(WRONG)
    folder = world.registry.version(PROJECT, 1)
    assert all(regions.map_of(folder, row["task"]).exists() for row in found["tasks"])
    assert SCHEMA.masks[0].name == found["tasks"][0]["control"]
