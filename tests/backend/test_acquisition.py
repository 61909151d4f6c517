"""An acquisition function of one's own: the documented example, what its pool holds, and what is wrong with others."""

import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from backend import acquisition, logs, members, settings
from backend.acquisition import AcquisitionError, Pool
from backend.cli import app
from backend.scored import Scored
from tasks.schema import Head

DOC = Path(__file__).parents[2] / "docs" / "acquisition.md"
BOM = Head("bom", "image", "single", ("benign", "malignant"), 1.0, False, None, None, required=True)


def pool(tasks: int = 5) -> Pool:
    rng = np.random.default_rng(0)
    p = rng.dirichlet([1, 1], (3, tasks)).astype(np.float32)
    p[1:, 0] = np.nan  # a task with one member
    return Pool(
        heads=(BOM,),
        ids=np.arange(10, 10 + tasks),
        members={"bom": p},
        probabilities={"bom": np.nanmean(p, axis=0)},
        recorded={"bom": np.full((tasks, 2), np.nan, dtype=np.float32)},
        uncertainty=np.zeros(tasks, dtype=np.float32),
        disagreement=np.zeros(tasks, dtype=np.float32),
        embeddings=np.zeros((tasks, 0), dtype=np.float32),
        reference=np.zeros((0, 0), dtype=np.float32),
        count=2,
    )


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], str]]:
    """Writes a module into the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    made = []

    def write(name: str, text: str) -> str:
        Path(f"{name}.py").write_text(text)
        made.append(name)
        return f"{name}:acquire"

    yield write
    for name in made:
        sys.modules.pop(name, None)


def test_the_example_of_the_documentation_runs(module: Callable[[str, str], str]) -> None:
    text = DOC.read_text()
    source = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    named = re.search(r"SECOND_LOOK_ACQUISITION=(\w+):acquire", text)
    assert source is not None and named is not None and source[1].startswith(f"# {named[1]}.py")
    given = pool()
    found = acquisition.scores(module(named[1], source[1]), given)
    expected = 2 * np.nanstd(given.members["bom"][..., 0], axis=0)
    assert np.allclose(found, expected, atol=1e-6)
    assert found[0] == 0 and (found[1:] > 0).all()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return pool.uncertainty[:3]", r"returned the shape \(3,\) for 5 tasks"),
        ("return pool.uncertainty + float('nan')", "gave task 10 the score nan, and 5 tasks"),
        ("return [0, 0.5, 1, 1.5, 0]", r"gave task 13 the score 1\.5, and 1 tasks one outside 0 to 1"),
        ("return 1 / 0", "failed: ZeroDivisionError: division by zero"),
        ("return None", r"failed: TypeError|shape \(\)"),
    ],
)
def test_what_it_gets_wrong_is_said(module: Callable[[str, str], str], body: str, message: str) -> None:
    with pytest.raises(AcquisitionError, match=message):
        acquisition.scores(module("own_measure", f"def acquire(pool):\n    {body}\n"), pool())


def test_what_cannot_be_imported_is_named(module: Callable[[str, str], str]) -> None:
    cases = {
        "sharpest": "write it as module:function",
        ":acquire": "write it as module:function",
        "no_such_module:acquire": "cannot be imported: ModuleNotFoundError: No module named 'no_such_module'",
        module("empty_one", "acquire = 3\n"): "is no function",
        "empty_one:other": "the module has no 'other'",
        module("broken_one", "raise RuntimeError('by hand')\n"): "RuntimeError: by hand",
    }
    for name, message in cases.items():
        with pytest.raises(AcquisitionError, match=re.escape(message)):
            acquisition.load(name)


def test_a_file_in_the_working_directory_stands_in_for_nothing_installed(module: Callable[[str, str], str]) -> None:
    module("json", "def dumps(pool): return 'not json'\n")
    module("colorsys", "acquire = 1\n")
    assert acquisition.load("json:dumps")([1]) == "[1]"
    with pytest.raises(AcquisitionError, match="the module has no 'acquire'"):
        acquisition.load("colorsys:acquire")
    assert sys.path[-1] == os.getcwd()  # noqa: PTH109


def test_the_alarm_of_the_last_order_is_kept_beside_it(tmp_path: Path) -> None:
    assert acquisition.alarms(tmp_path) == []
    acquisition.note(tmp_path, "acquisition 'a:b' failed")
    assert acquisition.alarms(tmp_path) == [
        "acquisition 'a:b' failed; the hybrid score orders the queue meanwhile",
    ]
    acquisition.note(tmp_path, None)
    assert acquisition.alarms(tmp_path) == []


def test_members_of_blocks_that_differ_in_number(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    first, second = (rng.dirichlet([1, 1], (m, n)).astype(np.float32) for m, n in ((2, 3), (4, 2)))
    ids = np.arange(1, 6)
    blocks = [(np.array([0, 2, 4]), {"bom": first}), (np.array([1, 3]), {"bom": second})]
    path = tmp_path / "members.npz"
    members.save(path, ids, blocks)
    mean = np.zeros((5, 2), dtype=np.float32)
    for rows, block in blocks:
        mean[rows] = block["bom"].mean(axis=0)

    found = members.load(path, ids, {"bom": mean})["bom"]
    assert found.shape == (4, 5, 2)
    assert np.array_equal(found[:2, [0, 2, 4]], first) and np.isnan(found[2:, [0, 2, 4]]).all()
    assert np.array_equal(found[:, [1, 3]], second)

    # In another order, with a task that came later and one whose image, and so its mean, is another by now.
    asked, means = np.array([4, 9, 1]), mean[[3, 0, 0]]
    means[2] = [0.5, 0.5]
    found = members.load(path, asked, {"bom": means})["bom"]
    assert np.array_equal(found[:, 0], second[:, 1])
    assert np.array_equal(found[0, 1:], means[1:]) and np.isnan(found[1:, 1:]).all()


def test_without_a_file_the_mean_is_the_one_member(tmp_path: Path) -> None:
    mean = np.array([[0.2, 0.8]], dtype=np.float32)
    found = members.load(tmp_path / "members.npz", np.array([1]), {"bom": mean})
    assert np.array_equal(found["bom"], mean[None])


# In the queue: `world` is a project of 120 tasks, the last 20 of them in the hold-out, with a version of one head.

BACKWARDS = """
def acquire(pool):
    global asked
    asked = pool
    return pool.ids / 1000
"""


def test_it_orders_the_queue_in_the_hybrids_place(world: Any, module: Callable[[str, str], str]) -> None:
    world.settings = world.settings.model_copy(update={"acquisition": module("backwards", BACKWARDS)})
    world.annotate(50)
    world.extend(40)
    rows = world.published()
    ranked = [row for row in rows if row.kind == "ranked"]
    taken = {row.task_id for row in rows if row.kind != "ranked"}
    assert [row.task_id for row in ranked] == [task for task in range(100, 0, -1) if task not in taken][: len(ranked)]
    assert [row.score for row in ranked] == pytest.approx([row.task_id / 1000 for row in ranked])
    assert all("Why now: the project's own measure." in row.why for row in ranked)
    assert {row.kind for row in rows} == {"ranked", "control", "blind", "holdout"}
    assert acquisition.alarms(world.registry.version(1, 1)) == []

    scores = Scored.load(world.registry.version(1, 1) / "predictions.npz").scores
    given = sys.modules["backwards"].asked
    assert given.ids.tolist() == [task for task in range(1, 101) if task != 50] and given.count == 40
    assert given.embeddings.shape == (99, 8) and given.reference.shape == (1, 8)
    assert given.members["bom"].shape == (1, 99, 2)
    assert np.array_equal(given.recorded["bom"], np.tile([1, 0], (99, 1)))
    assert np.array_equal(given.uncertainty[:49], scores.uncertainty[:49])

    world.extend(10)  # a refill asks again, for what is left
    assert set(sys.modules["backwards"].asked.ids) == set(given.ids) - {row.task_id for row in rows}


def test_when_it_fails_the_hybrid_orders_and_says_so(
    make_world: Any, tmp_path: Path, module: Callable[[str, str], str]
) -> None:
    orders = []
    for folder, name in (("without", ""), ("with", module("failing", "def acquire(pool):\n    return pool.nothing\n"))):
        (tmp_path / folder).mkdir()
        world = make_world(tmp_path / folder)
        world.settings = world.settings.model_copy(update={"acquisition": name})
        world.extend(40)
        orders.append([(row.task_id, row.kind, row.score, row.why) for row in world.published()])
    assert orders[0] == orders[1]
    (alarm,) = acquisition.alarms(world.registry.version(1, 1))
    assert alarm.startswith("acquisition 'failing:acquire' failed: AttributeError: ")


def test_before_anything_is_learnt_it_is_not_asked(
    make_world: Any, tmp_path: Path, module: Callable[[str, str], str]
) -> None:
    world = make_world(tmp_path, learnt=False)
    world.settings = world.settings.model_copy(update={"acquisition": module("failing", "acquire = None\n")})
    assert world.extend(10) == 10
    assert acquisition.alarms(world.registry.version(1, 1)) == []


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"acquisition": "no_such_module:acquire"}, "No module named 'no_such_module'"),
        ({"backbone": "resnet5O"}, "did you mean resnet50"),
        ({"weights": "/nowhere/own.safetensors"}, "there is no file /nowhere/own.safetensors"),
    ],
)
def test_what_is_not_there_stops_the_worker_at_its_start(
    world: Any, module: Callable[[str, str], str], monkeypatch: pytest.MonkeyPatch, wrong: dict[str, str], says: str
) -> None:
    chosen = world.settings.model_copy(update={"label_studio_token": SecretStr("a token"), **wrong})
    monkeypatch.setattr(settings, "settings", lambda: chosen)
    monkeypatch.setattr(logs, "configure", lambda *_, **__: None)  # of the whole process
    result = CliRunner().invoke(app, ["worker"])
    assert result.exit_code == 1 and says in result.stderr
