"""The report: its figures beside brute force on the small project of conftest, and its page in a browser."""

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask
from playwright.sync_api import Browser
from sqlalchemy import select
from typer.testing import CliRunner
from werkzeug.serving import make_server

from backend import evidence
from backend.app import create_app
from backend.cli import app as command_line
from backend.evaluation.compare import compare
from backend.evaluation.metrics import evaluate
from backend.report import charts
from backend.report.facts import gather
from backend.report.material import read
from backend.report.models import DRAWS
from backend.report.page import render
from backend.scored import Scored, score
from backend.settings import Settings, settings
from tasks import ledger
from tasks.project import basic_authorization
from tasks.schema import parse_label_config
from tasks.tables import Annotation, Project, Published, Task, Version

HOSTILE = '<script>alert(1)</script><img src="http://evil.example/x">'
WRONG = range(1, 31)  # malignant in truth, benign on record
OVERHANG = """() => [...document.querySelectorAll('table')]
    .map(table => table.getBoundingClientRect().right).filter(right => right > 688.5)"""


def answer(task: int, by: int, label: str, number: int, **more: Any) -> Annotation:
    """The answer to what was shown in place `number`, a day later every thirty."""
    at = f"2026-01-{2 + number // 30:02}T10:{number % 30:02}:00Z"
    told = {"completed_by": by, "created_at": at, "updated_at": at, "lead_time": 10.0 + number, "result": []}
    told |= {"was_cancelled": False, "parent_prediction": number + 1, "labels": {"bom": [label]}, "origin": "person"}
    return Annotation(project_id=1, id=1000 + number, task_id=task, **(told | more))


@pytest.fixture
def reviewed(world: Any) -> Any:
    """Two centres; users 7 and 8 answered all that was published, user 9 skipped a task, and version 2 came after."""
    world.extend(80)
    with world.store.begin() as session:
        for task in session.scalars(select(Task)):
            task.site = ("north", "south")[task.id % 2]
        for row in session.scalars(select(Published)):
            row.prediction_id = row.rank + 1
            label = "malignant" if row.task_id in WRONG else "benign"
            session.add(answer(row.task_id, 7 + row.rank % 2, label, row.rank))
            ledger.append(session, 1, "created", {"rank": row.rank}, task_id=row.task_id)
        skip = {"was_cancelled": True, "origin": "skipped", "labels": {}, "lead_time": None}
        session.add(answer(120, 9, "", 500, **skip, created_at="2026-01-02", updated_at="2026-01-02"))
        project = session.get_one(Project, 1)
        project.version, project.published, project.title = 2, 1, "Nodules"
        session.add(Version(project_id=1, number=2, created_at=2e9, seconds=1.0, schema="", labels=120, metrics={}))
    head = parse_label_config(world.store.project(1).label_config).heads[0]
    before = said(world, 1)
    malignant = np.random.default_rng(3).uniform(0.05, 0.95, 120).astype(np.float32)
    malignant[:30] = 0.9
    members = {"bom": np.stack([1 - malignant, malignant], axis=1)[None]}
    recorded = {"bom": np.tile(np.array([1, 0], dtype=np.float32), (120, 1))}
    blocks = [(np.arange(120), members)]
    scored = score(before.ids, before.pixels, [head], blocks, recorded, "entropy")
    scored.save(world.registry.version(1, 2) / "predictions.npz")
    return world


def said(world: Any, number: int) -> Scored:
    return Scored.load(world.registry.version(1, number) / "predictions.npz")


def holds(world: Any) -> np.ndarray:
    """One-hot (120, 2), benign first: what holds now, reviewed or as recorded."""
    done = {row.task_id for row in world.published()}
    malignant = np.array([task in WRONG and task in done for task in range(1, 121)])
    return np.stack([~malignant, malignant], axis=1).astype(np.float32)


def test_what_people_did_is_counted(reviewed: Any) -> None:
    found, rows = gather(reviewed.store, reviewed.settings, 1), reviewed.published()
    wrong = [row for row in rows if row.task_id in WRONG]
    assert (found["tasks"], found["open"], found["reviewed"], found["holdout"]) == (120, 120, 80, 20)
    days = [{"day": f"2026-01-0{2 + day}", "reviews": count} for day, count in enumerate((30, 30, 20))]
    assert found["days"] == days
    for arm, kinds in (("ranked", {"ranked"}), ("random", {"control", "blind"})):
        hits = [row.task_id in WRONG for row in rows if row.kind in kinds]
        assert found["found"][arm] == np.cumsum(hits).tolist()
    assert found["evidence"] == evidence.of_project(read(reviewed.store, reviewed.registry, 1))
    assert found["changes"] == {
        "heads": [{"control": "bom", "checked": 80, "corrected": len(wrong)}],
        "moves": [{"from": "benign", "to": "malignant", "count": len(wrong)}],
    }
    users = {row["annotator"]: row for row in found["annotators"]}
    for user in (7, 8):
        own = [row for row in rows if 7 + row.rank % 2 == user]
        corrected = sum(row.task_id in WRONG for row in own)
        assert users[user]["reviews"] == len(own) == 40 and users[user]["corrected"] == corrected
        assert users[user]["confirmed"] == 40 - corrected
        assert users[user]["median_seconds"] == np.median([10.0 + row.rank for row in own])
    assert users[9] == {"annotator": 9, "skipped": 1, "median_seconds": None, "tired": None} | dict.fromkeys(
        ("reviews", "confirmed", "corrected", "labelled", "flagged"), 0
    )
    with reviewed.store.begin() as session:
        head = ledger.head(session, 1)
    assert found["ledger"] == {"hash": head.hash, "length": 80}


def test_what_waits_for_the_expert_is_counted(reviewed: Any) -> None:
    settings = reviewed.settings
    assert "waiting for the expert" not in render(gather(reviewed.store, settings, 1))
    with reviewed.store.begin() as session:
        for number in (1000, 1001):
            session.get_one(Annotation, (1, number)).flagged = True
    found = gather(reviewed.store, settings, 1)
    assert found["for_the_expert"] == 2
    assert "<dt>waiting for the expert</dt><dd>2</dd>" in render(found)


def test_suspects_follow_the_documents_rule(reviewed: Any) -> None:
    found = gather(reviewed.store, reviewed.settings, 1)["suspects"]
    done = {row.task_id for row in reviewed.published()}
    suspects = [
        task for task, p in zip(range(1, 121), said(reviewed, 2).probabilities["bom"], strict=True) if p[0] < 0.2
    ]
    checked = [task for task in suspects if task in done]
    corrected = sum(task in WRONG for task in checked)
    assert found == {
        "threshold": 0.2,
        "tasks": 120,
        "suspects": len(suspects),
        "reviewed": len(checked),
        "corrected": corrected,
    }
    assert 0 < corrected < len(suspects)


def test_models_are_compared_on_the_hold_out_by_the_labels_that_hold_now(reviewed: Any) -> None:
    with reviewed.store.begin() as session:
        for task in range(101, 108):
            session.merge(answer(task, 7, "malignant", 600 + task, created_at="2026-02-01", updated_at="2026-02-01"))
    found = gather(reviewed.store, reviewed.settings, 1)
    head = parse_label_config(reviewed.store.project(1).label_config).heads[0]
    targets = holds(reviewed)[100:]
    targets[:7] = 0, 1
    old, new = (said(reviewed, number).probabilities["bom"][100:] for number in (1, 2))
    done = {row.task_id for row in reviewed.published()} | set(range(101, 108))
    both = found["before_and_after"]
    assert (both["first"], both["in_force"], both["tasks"], both["holdout"]) == (1, 2, 20, 20)
    groups = [f"p{task}" for task in range(101, 121)]
    for row, rows in (
        (both["heads"][0], slice(None)),
        (next(row for row in both["centres"] if row["centre"] == "south"), slice(0, 20, 2)),
    ):
        expected = compare(head, old[rows], new[rows], targets[rows], groups[rows], draws=DRAWS)
        assert row["figures"] == {name: vars(value) for name, value in expected.items()}
        assert row["n"] == len(targets[rows])
        assert row["adjudicated"] == len(done & set(range(101, 121)[rows]))
    assert [(row["version"], row["reviewed"]) for row in found["curve"]] == [(1, 0), (2, len(done))]
    for row, p in zip(found["curve"], (old, new), strict=True):
        figures = evaluate(head, p, targets)
        assert (row["auc"], row["macro_f1"], row["n"]) == (figures["auc"], figures["macro_f1"], 20)
    bins = found["reliability"]["bins"]
    assert sum(row["answers"] for row in bins) == 20
    gap = sum(row["answers"] * abs(row["confidence"] - row["right"]) for row in bins) / 20
    assert gap == pytest.approx(evaluate(head, new, targets)["ece"]) == pytest.approx(found["reliability"]["ece"])


def test_a_version_that_is_gone_or_saw_another_image_is_not_compared(reviewed: Any) -> None:
    with reviewed.store.begin() as session:
        session.get_one(Task, (1, 101)).pixels = "another image"
    found = gather(reviewed.store, reviewed.settings, 1)
    few = next(row for row in found["before_and_after"]["centres"] if row["centre"] == "south")
    assert few["n"] == 9 and few["figures"]["accuracy"]["after"] is not None
    assert few["figures"]["accuracy"]["low"] is None  # nine patients are too few for an interval
    assert (found["before_and_after"]["tasks"], found["curve"][0]["n"], found["reliability"]["n"]) == (19, 19, 19)
    (reviewed.registry.version(1, 1) / "predictions.npz").unlink()
    found = gather(reviewed.store, reviewed.settings, 1)
    assert found["before_and_after"] is None and [row["version"] for row in found["curve"]] == [2]
    assert "There is nothing to compare yet" in render(found)


def test_a_refused_version_is_no_after_and_one_put_in_force_again_no_new_point(reviewed: Any) -> None:
    folder = reviewed.registry.version(1, 2)
    with reviewed.store.begin() as session:
        session.get_one(Project, 1).version = 1
        refused = session.get_one(Version, (1, 2))
        refused.verdict = {"takes_over": False, "reason": "worse <b>by far</b>"}
    found = gather(reviewed.store, reviewed.settings, 1)
    assert found["before_and_after"] is None and found["reliability"]["version"] == 1
    assert [(row["version"], row["in_force"], row["takes_over"]) for row in found["versions"]] == [
        (1, True, None),
        (2, False, False),
    ]
    assert [row["version"] for row in found["curve"]] == [1, 2]
    page = render(found)
    assert "v2, refused" in page and "worse &lt;b&gt;by far&lt;/b&gt;" in page and "Model in force: v1" in page

    said(reviewed, 2).save(folder.with_name("3") / "predictions.npz")
    with reviewed.store.begin() as session:
        again = {"takes_over": True, "of": 2, "reason": "v2 put in force by ann: I know better"}
        more: dict[str, Any] = {"schema": "", "labels": 120, "metrics": {}, "verdict": again}
        session.add(Version(project_id=1, number=3, created_at=3e9, seconds=1.0, **more))
        session.get_one(Project, 1).version = 3
    found = gather(reviewed.store, reviewed.settings, 1)
    assert [row["version"] for row in found["curve"]] == [1, 2]
    assert found["versions"][2]["reviewed"] == found["versions"][1]["reviewed"]
    assert (found["before_and_after"]["first"], found["before_and_after"]["in_force"]) == (1, 3)
    assert "v3, in force" in render(found) and "I know better" in render(found)


def test_what_is_not_known_is_said_and_not_invented(world: Any) -> None:
    (world.registry.version(1, 1) / "predictions.npz").unlink()
    with world.store.begin() as session:
        session.get_one(Project, 1).version = None
        session.delete(session.get_one(Version, (1, 1)))
    page = render(gather(world.store, world.settings, 1))
    assert "<svg" not in page
    for sentence in (
        *(
            "No model was trained yet",
            "Nobody has reviewed a task yet",
            "There is no curve",
            "There is nothing to compare",
        ),
        *("There is no diagram", "No label on record was checked", "There are no suspects to name"),
        *(
            "No task of the queue was reviewed yet",
            "Nobody has answered or skipped",
            "The ledger of label events is empty",
        ),
    ):
        assert sentence in page


def test_titles_labels_and_centres_are_text_and_the_page_names_no_address(reviewed: Any) -> None:
    page = render(gather(reviewed.store, reviewed.settings, 1))
    assert not re.search(r"(?:https?:)?//|<script|@import|url\(|javascript:", page)
    with reviewed.store.begin() as session:
        project = session.get_one(Project, 1)
        project.title, project.alarms = HOSTILE, [HOSTILE]
        project.label_config = project.label_config.replace('name="bom"', 'name="&lt;b&gt;bom"')
        for task in session.scalars(select(Task)):
            task.site, task.current = HOSTILE, {"<b>bom": [HOSTILE]}
        for row in session.scalars(select(Annotation)):
            row.labels = {"<b>bom": ["malignant"]}
    page = render(gather(reviewed.store, reviewed.settings, 1))
    assert page.count("&lt;script&gt;") >= 4 and "&lt;b&gt;bom" in page
    assert "<script" not in page and "<img" not in page and "<b>" not in page
    assert "<script" not in charts.lines(HOSTILE, [charts.Line(HOSTILE, [(0, 0), (1, 1)])], HOSTILE, HOSTILE)


@pytest.fixture
def served(reviewed: Any) -> Flask:
    database = f"sqlite:///{reviewed.settings.state_dir / 'store.db'}"
    login = {"username": "admin", "password": "secret"}
    return create_app(Settings(state_dir=reviewed.settings.state_dir, database_url=database, **login))


def test_the_page_is_behind_the_login(served: Flask) -> None:
    client = served.test_client()
    assert client.get("/report/1").status_code == 401
    client.environ_base["HTTP_AUTHORIZATION"] = basic_authorization("admin", "secret")
    response = client.get("/report/1")
    assert response.status_code == 200 and "Nodules" in response.get_data(as_text=True)
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    unknown = client.get("/report/2")
    assert unknown.status_code == 404 and "project 2 is not known" in unknown.get_json()["error"]


def test_one_report_is_made_at_a_time(served: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one is made, which is slow where tasks are many, other requests are not kept waiting for it."""
    client = served.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = basic_authorization("admin", "secret")
    answers = []

    def gather_and_ask_again(*arguments: Any) -> dict[str, Any]:
        answers.append(client.get("/report/1"))
        return gather(*arguments)

    monkeypatch.setattr("backend.report.facts.gather", gather_and_ask_again)
    assert client.get("/report/1").status_code == 200
    assert (answers[0].status_code, answers[0].headers["Retry-After"]) == (503, "60")
    assert client.get("/report/1").status_code == 200


def test_the_command_writes_the_page_and_prints_its_facts(
    reviewed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECOND_LOOK_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("SECOND_LOOK_DATABASE_URL", f"sqlite:///{tmp_path / 'store.db'}")
    settings.cache_clear()
    file = tmp_path / "page.html"
    result = CliRunner().invoke(command_line, ["report", "--project", "1", "--out", str(file), "--json"])
    settings.cache_clear()
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed.pop("file") == str(file)
    now = json.loads(json.dumps(gather(reviewed.store, reviewed.settings, 1)))
    assert printed | {"made_at": ""} == now | {"made_at": ""}
    assert "Nodules" in file.read_text()


@pytest.fixture
def address(served: Flask) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, served, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/report/1"
    server.shutdown()
    thread.join()


def test_a_browser_shows_it_without_asking_for_anything_else(address: str, browser: Browser) -> None:
    spoken: list[str] = []
    asked: list[str] = []
    login = {"username": "admin", "password": "secret"}
    page = browser.new_page(viewport={"width": 390, "height": 844}, http_credentials=login)
    page.on("console", lambda message: spoken.append(message.text) if "401" not in message.text else None)
    page.on("pageerror", lambda error: spoken.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    assert page.title() == "Nodules: Second Look report"
    assert page.locator("svg").count() == 4
    assert all(box.bounding_box()["width"] > 300 for box in page.locator("svg").all())  # type: ignore[index]
    assert page.evaluate("document.styleSheets.length") == 1
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    headers = page.locator("th")
    assert headers.count() == page.locator("th[scope]").count()
    # In print all columns are on the sheet: A4 less its margins is 688 pixels wide.
    page.set_viewport_size({"width": 688, "height": 970})
    page.emulate_media(media="print")
    assert page.evaluate(OVERHANG) == []
    assert (spoken, set(asked)) == ([], {address})
