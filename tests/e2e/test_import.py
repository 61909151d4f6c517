"""`second-look import-probabilities` on a real Label Studio: the order that annotators are served is the file's."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from sqlalchemy import select
from typer.testing import CliRunner

from backend import events, jobs, plan, schedule
from backend import settings as chosen
from backend.cli import app
from backend.label_studio import open_client
from backend.live import Live
from backend.registry import Registry, load_json
from backend.settings import Settings
from backend.worker import Worker
from demo import labelstudio
from demo.labelstudio import call
from demo.oracle import Annotator
from tasks import pace
from tasks.queue import live_name, queue_name
from tasks.ranking.disagreement import disagreement
from tasks.ranking.uncertainty import uncertainty
from tasks.schema import parse_label_config
from tasks.store import Store
from tasks.tables import Entry, Job, Project, Published, Task, Version

CONFIG = """<View><Image name="image" value="$image" model_group="$patient"/>
<Choices name="bom" toName="image" model_current="$bom"><Choice value="benign"/><Choice value="malignant"/></Choices>
<TextArea name="why" toName="image" model_role="why" editable="false" maxSubmissions="1"/></View>"""
SCHEMA = parse_label_config(CONFIG)
TASKS = 60  # of which the last ten are in no file; nobody can read their images


@pytest.fixture
def project(label_studio: Any, request: pytest.FixtureRequest) -> int:
    number = labelstudio.create_project(label_studio.admin, request.node.name[:50], CONFIG)["id"]
    rows = [
        {"image": f"/nowhere/{row}.png", "bom": "benign", "patient": f"p{row // 2}", "file": f"{row}.png"}
        for row in range(TASKS)
    ]
    labelstudio.import_tasks(label_studio.admin, number, rows, CONFIG)
    return int(number)


@pytest.fixture
def settings(label_studio: Any, tmp_path: Path) -> Settings:
    return Settings(
        label_studio_url=label_studio.url, label_studio_token=label_studio.token, state_dir=tmp_path, batch_size=10
    )


@pytest.fixture
def run(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setattr(chosen, "settings", lambda: settings)
    return lambda *arguments: CliRunner().invoke(app, ["import-probabilities", *map(str, arguments)])


def malignant() -> np.ndarray:
    return np.random.default_rng(0).permutation(np.linspace(0.02, 0.98, TASKS - 10)).round(4)


def write(path: Path, p: np.ndarray) -> Path:
    lines = [f"{row}.png,{1 - value:.4f},{value:.4f}" for row, value in enumerate(p)]
    path.write_text("\n".join(["file,bom:benign,bom:malignant", *lines]) + "\n")
    return path


def test_the_served_order_is_the_files(
    label_studio: Any, project: int, settings: Settings, run: Callable[..., Result], tmp_path: Path
) -> None:
    store, registry = Store.open(settings.database), Registry(settings.state_dir)
    store.register_project(project, CONFIG)
    p = malignant()
    path = write(tmp_path / "oof.csv", p)

    # Checked only, or with a fault: nothing is made of it.
    checked = json.loads(run(path, "--dry-run", "--json").stdout)
    assert (checked["tasks"], checked["tasks_left_out"], checked["members"]) == (50, 10, [1])
    assert (checked["version"], checked["applied"]) == (None, False)
    wrong = write(tmp_path / "wrong.csv", p + 0.5)
    refused = run(wrong)
    assert refused.exit_code == 1
    assert "is no probability" in refused.stderr and "line 4:" in refused.stderr
    assert refused.stderr.endswith("nothing was applied\n")
    with store.begin() as session:
        assert session.scalars(select(Job)).all() == [] and session.scalars(select(Version)).all() == []

    applied = run(path, "--json")
    assert applied.exit_code == 0, applied.output
    assert (json.loads(applied.stdout)["version"], json.loads(applied.stdout)["applied"]) == (1, True)
    with store.begin() as session:
        tasks = {task.id: task for task in session.scalars(select(Task))}
        rows = session.scalars(select(Published).where(Published.version == 1).order_by(Published.rank)).all()
        row = session.get_one(Project, project)
        assert (row.version, row.published, row.probabilities) == (1, 1, "oof.csv")
        assert all(task.pixels is None and task.fold is None for task in tasks.values())
        (entry,) = session.scalars(select(Entry).where(Entry.event == "imported"))
        assert entry.body["file"] == "oof.csv"

    # By hand: the hybrid of uncertainty and disagreement, without diversity.
    members = np.stack([1 - p, p], axis=1)[None].astype(np.float32)
    unsure = uncertainty("entropy", members, False)
    contradicted = disagreement(members[0], np.tile(np.array([1, 0], np.float32), (len(p), 1)), SCHEMA.heads[0])
    score = {f"{number}.png": 0.1 * unsure[number] + 0.8 * contradicted[number] for number in range(len(p))}
    ranked = [item for item in rows if item.kind == "ranked"]
    expected = [score[tasks[item.task_id].data["file"]] for item in ranked]
    assert [item.score for item in ranked] == pytest.approx(expected, abs=1e-4)
    assert expected == sorted(expected, reverse=True) and len(ranked) > 15
    assert "Recorded: benign (model" in ranked[0].why and "Most like" not in ranked[0].why

    # Served in that order, and the same file once more changes nothing.
    annotator = Annotator(label_studio.admin, project, SCHEMA, "admin")
    for _ in range(5):
        task = annotator.next_task()
        assert task is not None
        annotator.submit(task, {"bom": ("malignant",)}, 3.0)
    assert [visit.task for visit in annotator.visits] == [item.task_id for item in rows[:5]]
    assert {visit.version for visit in annotator.visits} == {queue_name(1)}
    again = run(path)
    assert again.exit_code == 0 and "version 1 was made from this very file" in again.stdout
    with store.begin() as session:
        assert session.scalars(select(Version.number)).all() == [1]

    # Live: what the file says; a task that is not in it abstains.
    asked = [task for task in tasks.values() if task.data["file"] in ("0.png", "55.png")]
    asked.sort(key=lambda task: task.id)
    answers = Live(store, settings).predict(project, [{"id": task.id, "data": task.data} for task in asked])
    assert [{part["from_name"] for part in answer["result"]} for answer in answers] == [{"bom", "why"}, {"why"}]
    assert {answer["model_version"] for answer in answers} == {live_name(1)}

    # Another file makes a second version, with an ensemble this time.
    lines = path.read_text().splitlines()
    both = [f"member,{lines[0]}", *(f"a,{line}" for line in lines[1:]), *(f"b,{line}" for line in lines[1:])]
    (tmp_path / "ensemble.csv").write_text("\n".join(both))
    result = run(tmp_path / "ensemble.csv", "--json")
    assert result.exit_code == 0, result.output
    second = json.loads(result.stdout)
    assert (second["members"], second["version"], second["applied"]) == ([2], 2, True)
    remote = call(label_studio.admin, "GET", f"/api/projects/{project}")
    assert remote["model_version"] == queue_name(2)
    assert load_json(registry.version(project, 2) / "model.json")["probabilities"]["file"] == "ensemble.csv"


def test_no_training_comes_unasked(
    label_studio: Any, project: int, settings: Settings, run: Callable[..., Result], tmp_path: Path
) -> None:
    store = Store.open(settings.database)
    store.register_project(project, CONFIG, extra_params={"uncertainty": "bald"})
    path = write(tmp_path / "oof.csv", malignant())
    refused = run(path)
    assert refused.exit_code == 1 and "'bald' needs several members" in refused.stderr
    store.register_project(project, CONFIG, extra_params={"retrain_after": 1})
    assert schedule.training_due(store, settings, project) == "the first model"
    jobs.request(store, project, "probabilities", "by hand")  # while it waits, no training is asked for either
    assert schedule.training_due(store, settings, project) is None
    assert run(path).exit_code == 0

    annotator = Annotator(label_studio.admin, project, SCHEMA, "admin")
    task = annotator.next_task()
    assert task is not None
    annotator.submit(task, {"bom": ("malignant",)}, 3.0)
    worker = Worker(settings, store)
    with store.turn(project):
        worker.look_after(project, sweeping=False)
    tuned = settings.tuned({"retrain_after": 1})
    with store.begin() as session:
        assert schedule.pending(session, project) == 1
    assert schedule.training_due(store, tuned, project) is None
    assert schedule.catch_up_due(store, project) is None

    # A refill goes on with the file's order, without images; a changed config is an alarm.
    client = open_client(settings)
    order = published(store, project)
    assert pace.short_of_tasks(store, client, project) == []
    with store.begin() as session:
        for task_id in order[:-3]:
            session.get_one(Task, (project, task_id)).is_labeled = True
    assert pace.short_of_tasks(store, client, project)
    assert plan.extend_head(store, worker.registry, tuned, project, 1, 40) == 50 - len(order)
    assert published(store, project)[: len(order)] == order
    changed = CONFIG.replace('<Choice value="benign"/>', '<Choice value="benign"/><Choice value="unsure"/>')
    client.update_project(project, label_config=changed)
    with store.turn(project):
        alarms = worker.look_after(project, sweeping=False)
    client.close()
    assert any("the label config has changed since oof.csv was imported" in alarm for alarm in alarms)

    # Until it is asked for.
    events.hear(store, worker.bell, project, events.START_TRAINING)
    with store.begin() as session:
        assert session.scalars(select(Job.kind).where(Job.state == "queued")).all() == ["cycle"]


def test_a_data_cleaning_tool_without_a_model_of_ours(
    label_studio: Any, project: int, settings: Settings, run: Callable[..., Result], tmp_path: Path
) -> None:
    """Ranked by the file, reviewed on the screen and in a spreadsheet, counted, reported, stopped by a budget."""

    def command(*arguments: str) -> dict[str, Any]:
        result = CliRunner().invoke(app, [*arguments, "--project", str(project), "--json"])
        assert result.exit_code == 0, result.output
        found: dict[str, Any] = json.loads(result.stdout)
        return found

    store = Store.open(settings.database)
    store.register_project(project, CONFIG, extra_params={"stop": "auto", "budget_annotations": 5})
    assert run(write(tmp_path / "oof.csv", malignant())).exit_code == 0
    annotator, worker = Annotator(label_studio.admin, project, SCHEMA, "admin"), Worker(settings, store)
    for _ in range(3):
        task = annotator.next_task()
        assert task is not None
        annotator.submit(task, {"bom": ("malignant",)}, 3.0)
    with store.turn(project):
        worker.look_after(project, sweeping=False)
    assert store.project(project).stopped is None

    sheet = tmp_path / "review.csv"
    assert command("export", str(sheet), "--top", "4")["version"] == 1
    rows = list(csv.DictReader(sheet.open(encoding="utf-8-sig", newline="")))
    for row, decision in zip(rows, ("malignant", "benign", "", ""), strict=True):
        row["bom"] = decision
    with sheet.open("w", newline="") as out:
        writer = csv.DictWriter(out, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    assert command("import", str(sheet))["applied"] == 2

    with store.turn(project):
        worker.look_after(project, sweeping=False)
    assert store.project(project).stopped == "5 of 5 annotations of the budget are made."
    with store.begin() as session:
        assert not session.scalars(select(Job).where(Job.kind != "probabilities")).all()
    before = published(store, project)
    assert plan.extend_head(store, worker.registry, settings, project, 1, 5) == 5
    with store.begin() as session:
        whys = {row.task_id: row.why for row in session.scalars(select(Published))}
    assert [
        whys[task].endswith("further answers are kept.") for task in (*before, *published(store, project)[-5:])
    ] == [
        *([False] * len(before)),
        *([True] * 5),
    ]

    about = json.loads(CliRunner().invoke(app, ["status", "--json"]).stdout)["projects"][0]
    assert about["probabilities"] == "oof.csv" and about["model"]["holdout"]["bom"]["n"] == 0
    assert about["evidence"]["line"].startswith("3 reviewed, 3 wrong labels found")
    assert about["evidence"]["line"].endswith("outside the queue 2 more, 1 wrong labels found")
    assert about["evidence"]["wrong_labels"]["found"] == 4
    assert about["evidence"]["error_rate_left"]["labels"] == TASKS
    assert about["stopping"]["wrong_labels"]["next"][-1]["reviews"] == 45
    report = tmp_path / "report.html"
    command("report", "--out", str(report))
    page = report.read_text()
    assert "no model of ours is there to gain" in page and "Wrong labels of bom, in the order of the queue" in page
    assert command("audit", "verify")["broken"] == []


def published(store: Store, project: int) -> list[int]:
    with store.begin() as session:
        query = select(Published.task_id).where(Published.project_id == project).order_by(Published.rank)
        return list(session.scalars(query))
