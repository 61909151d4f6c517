"""The loop over masks, with a Label Studio in memory: what is marked is learnt, drawn, queued, reviewed and learnt."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend import regions
from backend.learning.folds import HOLDOUT
from backend.live import Live
from backend.marked import Marked
from backend.marking import Seen
from backend.registry import load_json
from backend.replay.label_studio import PROJECT
from backend.scored import of_version
from backend.snapshot import Snapshot
from tasks.mask_codec import decode_masks
from tasks.queue import open_head
from tasks.tables import Annotation, Task, Version
from tests.backend.squares import CONFIG, COUNT, HEIGHT, SCHEMA, WIDTH, Killed, Squares, as_result, rectangle, scope


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Squares:
    made = Squares(tmp_path_factory.mktemp("squares"))
    made.cycle()
    return made


def test_masks_and_rectangles_are_published(squares: Squares) -> None:
    shown = squares.published()
    suggested = {task: row for task, row in shown.items() if row.kind in ("ranked", "control")}
    assert suggested
    agreement = []
    for task, row in suggested.items():
        kinds = [result["type"] for result in row.shown]
        assert kinds.count("rectanglelabels") == 3 and kinds.count("textarea") == 1
        assert row.why.startswith("Drawn by the model: square. Least sure in the rectangles (3).\nWhy now: ")
        found = decode_masks(SCHEMA, row.shown, HEIGHT, WIDTH)
        assert found.problems == ()
        both, truth = found.masks["mask"][0], squares.masks[task - 1]
        agreement.append(2 * (both & truth).sum() / (both.sum() + truth.sum()))
        assert all(0 <= patch.score <= 1 for patch in found.patches if patch.score is not None)
    assert np.mean(agreement) > 0.8
    for row in shown.values():
        if row.kind in ("blind", "holdout"):
            assert [result["type"] for result in row.shown] == ["textarea"]


def test_the_loop_knows_how_well_it_draws(squares: Squares) -> None:
    folder = squares.registry.version(PROJECT, 1)
    with squares.store.begin() as session:
        version = session.get_one(Version, (PROJECT, 1))
    figures = version.metrics["mask"]
    assert figures["n"] > 0 and figures["dice"] == figures["classes"]["square"] > 0.8
    assert figures["adjudicated"] == 0
    taken = Snapshot.load(folder / "snapshot.npz")
    assert version.labels == len(Marked.load(folder / "marked.json").trained(taken.folds)) > 5


def test_masks_on_record_are_doubted_and_nothing_else_is(squares: Squares) -> None:
    folder = squares.registry.version(PROJECT, 1)
    scored, seen = of_version(folder), Seen.load(folder / "seen.npz")
    assert scored.drawn == {"mask"} and scored.probabilities == {}
    assert scored.scores is not None
    recorded = scored.ids <= COUNT // 2
    assert 0 < (scored.scores.disagreement[recorded] > 0).sum() <= COUNT // 4
    assert (scored.scores.disagreement[~recorded] == 0).all()
    np.testing.assert_array_equal(np.isnan(seen.dice[:, 0]), ~recorded)
    assert (scored.scores.uncertainty > 0).all()


def test_live_answers_show_what_the_queue_shows(squares: Squares) -> None:
    live, rows = Live(squares.store, squares.settings), squares.published()
    task = next(number for number, row in rows.items() if row.kind == "ranked")
    held = next(number for number, fold in squares.folds().items() if fold == HOLDOUT)
    fields = [{"id": number, "data": {"image": f"{number - 1}.png"}} for number in (task, held)]
    shown, blind = (answer["result"] for answer in live.predict(PROJECT, fields))

    def regions_of(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [result for result in results if result["from_name"] in ("mask", "look")]

    assert regions_of(shown) == regions_of(rows[task].shown) != []
    assert regions_of(blind) == []


def test_what_was_reviewed_is_learnt_and_nothing_else(tmp_path: Path) -> None:
    squares = Squares(tmp_path)
    squares.cycle()
    open_tasks = [number for number in open_head(squares.store, PROJECT) if number > COUNT // 2]
    patched, drawn_whole, empty = open_tasks[:3]
    shown = squares.published()[patched].shown
    rectangles = [result for result in shown if result["from_name"] == "look"] or [rectangle(4, 8, 16, 16)]
    squares.label_studio.answer(patched, [*squares.drawn(patched), *rectangles, scope("patches")])
    squares.label_studio.answer(drawn_whole, [*squares.drawn(drawn_whole), scope("image")])
    squares.label_studio.answer(empty, [scope("image")])
    folder = squares.cycle()
    marked, taken = Marked.load(folder / "marked.json"), Snapshot.load(folder / "snapshot.npz")
    rows = {task: row for row, task in enumerate(taken.ids.tolist())}
    inside = np.zeros((HEIGHT, WIDTH), dtype=bool)
    for patch in decode_masks(SCHEMA, rectangles, HEIGHT, WIDTH).patches:
        inside[patch.y : patch.y + patch.height, patch.x : patch.x + patch.width] = True
    wanted = {
        patched: (squares.masks[patched - 1] & inside, inside),
        drawn_whole: (squares.masks[drawn_whole - 1], np.ones_like(inside)),
        empty: (np.zeros_like(inside), np.ones_like(inside)),
    }
    for task, (mask, reviewed) in wanted.items():
        painted = np.load(squares.registry.painted(str(marked.painted[rows[task]])))
        np.testing.assert_array_equal(painted[0], mask)
        np.testing.assert_array_equal(painted[1], reviewed)
        assert marked.people[rows[task]]
    assert load_json(folder / "model.json")["labels"] == len(marked.trained(taken.folds))
    before, after = (load_json(squares.registry.version(PROJECT, n) / "unets" / "made.json") for n in (1, 2))
    assert before["learnt_from"] != after["learnt_from"]
    with squares.store.begin() as session:
        counted = session.query(Annotation).filter(Annotation.task_id.in_(wanted)).all()
    assert [row.trained_in for row in counted] == [2, 2, 2]


def test_a_killed_cycle_goes_on_and_ends_with_the_same_masks(tmp_path: Path) -> None:
    whole, killed = Squares(tmp_path / "a"), Squares(tmp_path / "b")
    expected = whole.cycle()
    for left in (70, 60):  # in the second U-Net, and among the images to draw
        with pytest.raises(Killed):
            killed.cycle(left)
    folder = killed.cycle()
    assert folder.name == expected.name == "1"
    for task in range(1, COUNT + 1):
        said = (load_json(where / "regions" / f"{task}.json") for where in (folder, expected))
        assert next(said) == next(said)


def test_masks_that_nothing_has_changed_go_on(tmp_path: Path) -> None:
    squares = Squares(tmp_path)
    first, second = squares.cycle(), squares.cycle()
    for fold in range(2):
        name = f"unets/unet-{fold}.safetensors"
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_too_few_masks_abstain_and_bad_regions_cost_their_own_task(tmp_path: Path) -> None:
    squares = Squares(tmp_path, marked=2)
    good = squares.drawn(3)
    (region,) = good
    bad: dict[int, list[dict[str, Any]]] = {
        4: [region | {"value": region["value"] | {"rle": [1, 2, 3]}}],
        5: [region | {"original_width": 2 * WIDTH}],
        6: [region | {"value": region["value"] | {"brushlabels": ["circle"]}}],
        7: [region | {"value": {"format": "rle", "rle": [], "brushlabels": ["square"]}}],
    }
    for task, result in bad.items():
        squares.record(task, result)
    folder = squares.cycle()
    marked, taken = Marked.load(folder / "marked.json"), Snapshot.load(folder / "snapshot.npz")
    rows = {task: row for row, task in enumerate(taken.ids.tolist())}
    assert set(marked.problems) == set(bad)
    assert "was drawn on an image of 128 x 48 pixels" in " ".join(marked.problems[5])
    assert "circle" in " ".join(marked.problems[6])
    assert all(marked.painted[rows[task]] == "" for task in (4, 5, 7))
    assert not (folder / "seen.npz").exists()
    assert "mask" not in load_json(folder / "model.json")["holdout"]
    for row in squares.published().values():
        assert [result["type"] for result in row.shown] == ["textarea"]


def test_later_tasks_are_drawn_and_their_masks_judged_by_what_is_usual(tmp_path: Path) -> None:
    squares = Squares(tmp_path)
    there = squares.label_studio._tasks
    late = {task: there.pop(task) for task in (23, 24)}
    folder = squares.cycle()
    there |= late
    squares.record(24, as_result(~squares.masks[23]))
    squares.catch_up()
    scored = of_version(folder)
    assert scored.scores is not None and {23, 24} <= scored.row_of.keys()
    assert scored.scores.disagreement[scored.row_of[23]] == 0
    if squares.folds()[24] != HOLDOUT:
        assert scored.scores.disagreement[scored.row_of[24]] > 0.5
    with squares.store.begin() as session:
        pixels = session.get_one(Task, (PROJECT, 23)).pixels
    drawn = regions.of_task(folder, 23, pixels, SCHEMA)
    assert drawn is not None and {result["from_name"] for result in drawn} == {"mask", "look"}


def test_a_project_may_hold_both_kinds_of_control(tmp_path: Path) -> None:
    half = """<Choices name="half" toName="image" model_current="$half"><Choice value="left"/><Choice value="right"/>
    </Choices></View>"""
    squares = Squares(tmp_path, marked=12, config=CONFIG.replace("</View>", half), count=40)
    folder = squares.cycle()
    scored = of_version(folder)
    assert scored.drawn == {"mask"} and scored.probabilities.keys() == {"half"}
    assert scored.scores is not None and scored.scores.heads == ("half", "mask")
    np.testing.assert_allclose(scored.scores.head_weights, 0.5)
    assert (scored.scores.head_uncertainty > 0).all()
    assert load_json(folder / "model.json")["holdout"].keys() == {"half", "mask"}
    row = next(row for row in squares.published().values() if row.kind == "ranked")
    assert {result["from_name"] for result in row.shown} >= {"half", "look", "why"}
    assert "Model: " in row.why and "rectangles (3)" in row.why
