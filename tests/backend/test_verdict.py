"""Champion and challenger in whole loops: cycles as the worker runs them, with a Label Studio in memory."""

import json
import threading
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from backend import jobs, promotion, schedule, verdict
from backend.catch_up import CatchUp
from backend.cli import app
from backend.cycle import Cycle
from backend.registry import Registry, load_json, save_json
from backend.replay.label_studio import PROJECT, ReplayImages
from backend.replay.material import Material
from backend.replay.run import Replay
from backend.settings import Settings
from backend.status import of_project
from backend.work import Stopped, Work
from tasks import ledger, queue, sync
from tasks.client import Client
from tasks.codec import encode_labels
from tasks.images import Images
from tasks.schema import Labels
from tasks.tables import Annotation, Entry, Job, Project, Published, Task, Version

CONFIG = """<View><Image name="image" value="$image" model_group="$patient" model_site="$site"/>
<Choices name="bom" toName="image" model_current="$bom" model_positive="malignant" required="true">
  <Choice value="benign"/><Choice value="malignant"/></Choices>
<TextArea name="why" toName="image" model_role="why" editable="false" maxSubmissions="1"/></View>"""
COUNT = 140
QUICK = {"backbone": "resnet10t", "weights": "scratch", "image_size": 32, "epochs": 3, "folds": 2, "head_seeds": 1}
OTHER = {"benign": "malignant", "malignant": "benign"}


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    """Bright images are malignant; a tenth of them is hard to tell, and two come of each patient."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    data, files, truth = [], {}, []
    for number in range(COUNT):
        malignant = number // 2 % 2 == 1
        level = 128 + (45 if malignant else -45) + 30 * rng.normal()
        pixels = np.clip(level + 20 * rng.normal(size=(32, 32)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        label = "malignant" if malignant else "benign"
        url = f"/data/upload/{number}.png"
        data.append({"image": url, "patient": f"p{number // 2}", "site": "A" if number % 4 < 2 else "B", "bom": label})
        files[url] = folder / f"{number}.png"
        truth.append({"bom": (label,)})
    return Material(CONFIG, data, files, truth)


@pytest.fixture(scope="module")
def first(material: Material, tmp_path_factory: pytest.TempPathFactory) -> Replay:
    """A project with its first model."""
    settings = Settings(batch_size=8, head_hours=0.0, _env_file=None, **cast(Any, QUICK))
    made = Replay(material, settings, tmp_path_factory.mktemp("first") / "state")
    made.begin()
    return made


@pytest.fixture
def loop(first: Replay, tmp_path: Path) -> Replay:
    return first.branch(tmp_path / "state")


def rows(loop: Replay, table: Any, *order: Any) -> list[Any]:
    with loop.store.begin() as session:
        return session.query(table).order_by(*order).all()


def project(loop: Replay) -> Project:
    found = loop.store.project(PROJECT)
    assert found is not None
    return found


def trained_on(loop: Replay) -> list[int]:
    return [task.id for task in rows(loop, Task, Task.id) if task.fold != -1]


def answer(loop: Replay, tasks: list[int], wrong: bool) -> None:
    """One reviewer says of each task what is true, or the opposite."""
    for task in tasks:
        (label,) = loop.material.truth[task - 1]["bom"]
        labels: Labels = {"bom": (OTHER[label] if wrong else label,)}
        loop.label_studio.answer(task, encode_labels(loop.schema, labels))


def work(loop: Replay, kind: type[Work], stopping: Any = None) -> Work:
    """The job that was requested, as the worker would run it."""
    job = jobs.claim(loop.store, "test")
    assert job is not None and job.kind == kind.kind
    client, images = cast(Client, loop.label_studio), cast(Images, ReplayImages(loop.material.files))
    registry = Registry(loop.settings.state_dir)
    return kind(loop.store, client, images, registry, loop.settings, job.id, PROJECT, stopping or threading.Event())


def run(loop: Replay, kind: type[Work]) -> int:
    jobs.request(loop.store, PROJECT, kind.kind, "test")
    made = work(loop, kind)
    number = made.run()
    jobs.finish(loop.store, made.job_id, "test")
    return number


def refuse_the_second(loop: Replay) -> list[int]:
    """A malicious reviewer contradicts most of what is known."""
    misled = trained_on(loop)[:90]
    answer(loop, misled, wrong=True)
    loop.cycle()
    return misled


def test_the_first_model_takes_over_and_says_why(first: Replay) -> None:
    (only,) = rows(first, Version)
    assert only.verdict["takes_over"] and only.verdict["by"] == "rule" and "first model" in only.verdict["reason"]
    assert project(first).version == project(first).published == 1


def test_a_worse_challenger_is_refused_and_the_next_good_one_takes_over(loop: Replay) -> None:
    misled = refuse_the_second(loop)
    one, two = rows(loop, Version, Version.number)
    said = two.verdict
    assert (said["takes_over"], said["by"], said["against"], said["figure"]) == (False, "test", 1, "auc")
    assert said["before"] > 0.85 > said["after"] and said["p_worse"] > 0.95 and said["high"] < 0
    assert said["groups"] >= 10 and said["n"] == 2 * said["groups"] and said["adjudicated"] == 0
    assert (two.published_at, two.metrics["bom"]["n"]) == (None, said["n"])
    folder = Registry(loop.settings.state_dir).version(PROJECT, 2)
    assert load_json(folder / "model.json")["verdict"] == said
    entry = rows(loop, Entry, Entry.seq.desc())
    trained = next(row for row in entry if row.event == "trained")
    assert trained.body["verdict"] == said

    # The order of the model in force goes on: filled up, and nothing of the refused one is in Label Studio.
    known = project(loop)
    assert (known.version, known.published) == (1, 1)
    assert set(loop.label_studio.model_versions(PROJECT)) == {queue.queue_name(1)}
    answered = {row.task_id for row in rows(loop, Annotation)}
    waiting = [row for row in rows(loop, Published, Published.rank) if row.task_id not in answered]
    left = COUNT - len(answered)
    assert len(waiting) == min(3 * loop.settings.batch_size, left) and all(row.version == 1 for row in waiting)
    assert queue.guard(loop.store, cast(Client, loop.label_studio), PROJECT) == []

    # What it learnt counts as learnt: no training follows by itself, but the model in force looks at what came.
    assert all(row.trained_in == 2 for row in rows(loop, Annotation))
    assert schedule.training_due(loop.store, loop.settings, PROJECT) is None
    assert schedule.catch_up_due(loop.store, PROJECT) == "what a refused model has read"
    run(loop, CatchUp)
    assert schedule.catch_up_due(loop.store, PROJECT) is None and project(loop).published == 1
    assert one.labels == two.labels

    registry = Registry(loop.settings.state_dir)
    assert verdict.refused(loop.store, registry, PROJECT) == {2}  # nobody inherits backbones of wrong labels
    answer(loop, misled, wrong=False)
    loop.cycle()
    three = rows(loop, Version, Version.number)[-1]
    assert three.verdict["takes_over"] and three.verdict["by"] == "test" and three.verdict["against"] == 1
    assert (project(loop).version, project(loop).published) == (3, 3)
    assert load_json(registry.version(PROJECT, 3) / "backbones.json")["number"] == 1
    assert all(row.trained_in == 3 for row in rows(loop, Annotation) if row.id > len(misled))


def test_a_refusal_killed_anywhere_is_the_same_refusal(loop: Replay, tmp_path: Path) -> None:
    spared = loop.branch(tmp_path / "spared")
    refuse_the_second(spared)
    answer(loop, trained_on(loop)[:90], wrong=True)
    sync.reconcile(loop.store, cast(Client, loop.label_studio), PROJECT)
    jobs.request(loop.store, PROJECT, Cycle.kind, "test")
    for step in ("evaluating", "publishing the queue"):
        died = work(loop, Cycle)
        begin = died._begin

        def until(said: str, version: int, begin: Any = begin, step: str = step) -> Any:
            if said == step:
                raise Stopped
            return begin(said, version)

        died._begin = until  # type: ignore[method-assign]
        with pytest.raises(Stopped):
            died.run()
        jobs.release(loop.store, died.job_id, "test")
        assert project(loop).version == 1
    resumed = work(loop, Cycle)
    assert resumed.run() == 2
    one, other = (rows(place, Version, Version.number)[-1].verdict for place in (loop, spared))
    assert one == other and not one["takes_over"]
    assert (project(loop).version, project(loop).published) == (1, 1)
    assert sum(row.event == "trained" for row in rows(loop, Entry)) == 2


def test_a_level_of_one_refuses_nothing_and_another_label_config_is_not_compared(loop: Replay) -> None:
    loop.settings = loop.settings.model_copy(update={"gate_level": 1.0})
    refuse_the_second(loop)
    assert project(loop).version == 2
    assert rows(loop, Version, Version.number)[-1].verdict["best"] == 1  # later ones are held against that one too
    loop.settings = loop.settings.model_copy(update={"gate_level": 0.95})
    config = CONFIG.replace('<Choice value="malignant"/>', '<Choice value="malignant"/><Choice value="cyst"/>')
    loop.label_studio.update_project(PROJECT, label_config=config)
    loop.cycle()
    three = rows(loop, Version, Version.number)[-1].verdict
    assert three["takes_over"] and "label config has changed since v2" in three["reason"]


def test_an_admin_overrules_on_the_record(loop: Replay, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_the_second(loop)
    registry, store = Registry(loop.settings.state_dir), loop.store
    monkeypatch.setattr("backend.settings.settings", lambda: loop.settings)

    def invoke(*arguments: str) -> Any:
        return CliRunner().invoke(app, list(arguments))

    for arguments, words in (
        (["promote", "9", "--because", "x"], "has no version 9"),
        (["promote", "1", "--because", "x"], "in force already"),
        (["promote", "2", "--because", " "], "--because must say why"),
    ):
        refused = invoke(*arguments)
        assert refused.exit_code == 1 and words in refused.output

    text = " ".join(invoke("status").stdout.split())
    assert "the first model" in text and "v2 was refused: AUC of bom" in text

    promotion.stage(registry, PROJECT, promotion.Decision(2, "ann", "the hold-out is wrong"))
    assert run(loop, promotion.Promotion) == 3
    known = project(loop)
    assert (known.version, known.published) == (3, 3)
    two, three = rows(loop, Version, Version.number)[1:]
    assert (three.metrics, three.labels, three.schema) == (two.metrics, two.labels, two.schema)
    said = three.verdict
    assert (said["takes_over"], said["by"], said["of"], said["who"], said["best"]) == (True, "admin", 2, "ann", 3)
    assert said["because"] == "the hold-out is wrong" and said["test"] == two.verdict
    entry = rows(loop, Entry, Entry.seq.desc())[1]  # the last one is its publication
    assert entry.event == "promoted"
    assert (entry.body["version"], entry.body["of"], entry.body["instead_of"]) == (3, 2, 1)
    with store.begin() as session:
        assert ledger.verify(session, PROJECT) == []
    one, other = (np.load(registry.version(PROJECT, n) / "predictions.npz")["p:bom"] for n in (2, 3))
    np.testing.assert_array_equal(one, other)
    assert verdict.refused(store, registry, PROJECT) == set()  # its backbones are in use now
    assert schedule.training_due(store, loop.settings, PROJECT) is None
    assert "put in force" in str(schedule.catch_up_due(store, PROJECT))
    shown = of_project(store, loop.settings, PROJECT)["model"]
    assert (shown["verdict"], shown["refused"]) == (said, [])
    assert [row["site"] for row in shown["centres"]["centres"]] == ["A", "B"]

    listed = json.loads(invoke("models", "--json").stdout)["versions"]
    assert [(row["version"], row["in_force"], row["kept"]) for row in listed] == [
        (1, False, True),
        (2, False, True),
        (3, True, True),
    ]
    assert [row["verdict"]["takes_over"] for row in listed] == [True, False, True]
    table = invoke("models").stdout
    assert "refused" in table and "the hold-out is wrong" in " ".join(table.split())

    (registry.version(PROJECT, 1) / "predictions.npz").unlink()
    gone = invoke("promote", "1", "--because", "x")
    assert gone.exit_code == 1 and "is gone from the state folder" in gone.output
    # The next training is judged against what the admin put in force.
    loop.cycle()
    assert rows(loop, Version, Version.number)[-1].verdict["against"] == 3


def test_a_promotion_killed_halfway_is_one_promotion(loop: Replay) -> None:
    refuse_the_second(loop)
    registry = Registry(loop.settings.state_dir)
    promotion.stage(registry, PROJECT, promotion.Decision(2, "ann", "because"))
    jobs.request(loop.store, PROJECT, promotion.KIND, "test")
    died = work(loop, promotion.Promotion)
    died.stopping.set()
    with pytest.raises(Stopped):
        died.run()
    jobs.release(loop.store, died.job_id, "test")
    save_json(registry.version(PROJECT, 0).parents[1] / "promotion.json", {"version": 1, "who": "bob", "because": ""})
    resumed = work(loop, promotion.Promotion)
    assert resumed.run() == 3 == resumed.run()
    assert rows(loop, Version, Version.number)[-1].verdict["who"] == "ann"
    assert sum(row.event == "promoted" for row in rows(loop, Entry)) == 1
    assert [job.version for job in rows(loop, Job, Job.id)][-1] == 3
