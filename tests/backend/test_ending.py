"""The end of a project's trainings: by hand, by itself, taken back; what it leaves alone."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from sqlalchemy import select
from typer.testing import CliRunner

from backend import ending, jobs, schedule
from backend import settings as chosen
from backend.cli import app
from backend.evaluation.stopping import RECENT
from backend.report.facts import gather
from backend.report.page import render
from tasks import ledger
from tasks.tables import Annotation, Entry, Job, Project, Published, Task, Version

ENOUGH = "Enough is reviewed; further answers are kept."


def answers(world: Any, label: str = "benign", lead_time: float | None = 36.0) -> None:
    """Everything published is answered by user 7, in its order."""
    with world.store.begin() as session:
        session.get_one(Project, 1).published = 1
        for row in session.scalars(select(Published)):
            row.prediction_id = row.rank + 1
            at = f"2026-01-02T10:{row.rank // 60:02}:{row.rank % 60:02}Z"
            told = {"completed_by": 7, "created_at": at, "updated_at": at, "lead_time": lead_time, "result": []}
            told |= {"was_cancelled": False, "parent_prediction": row.prediction_id, "labels": {"bom": [label]}}
            session.add(Annotation(project_id=1, id=row.task_id, task_id=row.task_id, origin="person", **told))


def add_version(world: Any, number: int) -> None:
    """A version that says what the first one does."""
    first = world.registry.version(1, 1)
    shutil.copytree(first, world.registry.version(1, number), dirs_exist_ok=True)
    with world.store.begin() as session:
        same = {"seconds": 1.0, "schema": "", "labels": 120, "metrics": {}}
        session.add(Version(project_id=1, number=number, created_at=float(number), **same))
        session.get_one(Project, 1).version = number
        ledger.append(session, 1, "trained", {"version": number})


def events(world: Any) -> list[tuple[str, dict[str, Any]]]:
    with world.store.begin() as session:
        query = select(Entry).where(Entry.event.in_(["stopped", "resumed"])).order_by(Entry.seq)
        return [(entry.event, entry.body) for entry in session.scalars(query)]


def auto(world: Any, **more: Any) -> Any:
    return world.settings.model_copy(update={"stop": "auto"} | more)


def tried(world: Any, settings: Any, thorough: bool) -> bool:
    return ending.stop_if_enough(world.store, world.registry, settings, 1, thorough)


def test_stopped_no_training_comes_until_it_is_taken_back(world: Any) -> None:
    assert schedule.training_due(world.store, world.settings, 1) == "the label config has changed"
    assert ending.stop(world.store, 1, "the money is spent", "command line")
    assert schedule.training_due(world.store, world.settings, 1) is None
    assert not ending.stop(world.store, 1, "again", "worker")
    assert world.store.project(1).stopped == "the money is spent"
    job = jobs.request(world.store, 1, "cycle", "asked for on the command line")
    with world.store.begin() as session:
        assert session.get_one(Job, job).state == "queued"
        session.delete(session.get_one(Job, job))
    assert ending.resume(world.store, 1, "more money") and not ending.resume(world.store, 1, "again")
    assert schedule.training_due(world.store, world.settings, 1) == "the label config has changed"
    assert events(world) == [
        ("stopped", {"because": "the money is spent", "by": "command line", "version": 1}),
        ("resumed", {"because": "more money", "version": 1}),
    ]
    with world.store.snapshot() as session:
        assert ledger.verify(session, 1) == []


def test_stopped_before_the_first_model(world: Any) -> None:
    with world.store.begin() as session:
        session.get_one(Project, 1).version = None
    assert schedule.training_due(world.store, world.settings, 1) == "the first model"
    ending.stop(world.store, 1, "not now", "command line")
    assert schedule.training_due(world.store, world.settings, 1) is None


def test_a_spent_budget_stops_by_itself_where_that_is_set(world: Any) -> None:
    world.extend(20)
    answers(world)
    assert not tried(world, world.settings.model_copy(update={"budget_annotations": 1}), True)  # advice only
    assert not tried(world, auto(world), False) and not tried(world, auto(world, budget_annotations=21), False)
    assert not tried(world, auto(world, budget_hours=0.21), False)  # 20 times 36 seconds are 0.2 hours
    assert tried(world, auto(world, budget_annotations=20, budget_hours=0.2), False)
    assert not tried(world, auto(world, budget_annotations=20), False)  # it has
    (event,) = events(world)
    assert event[1]["by"] == "worker" and "20 of 20 annotations" in event[1]["because"]
    assert "0.2 of 0.2 hours" in event[1]["because"]


def test_whoever_resumes_gets_another_model_first(world: Any) -> None:
    world.extend(20)
    answers(world)
    settings = auto(world, budget_annotations=5)
    assert tried(world, settings, False)
    ending.resume(world.store, 1, "one more")
    assert not tried(world, settings, False) and not tried(world, settings, True)
    with world.store.begin() as session:
        ledger.append(session, 1, "promoted", {"version": 2})  # an old one, put in force again
    assert not tried(world, settings, False)
    add_version(world, 2)
    assert tried(world, settings, False)


@pytest.fixture
def settled_down(world: Any) -> Any:
    """Four models that say the same, and a hundred ranked reviews that found nothing."""
    world.settings = world.settings.model_copy(update={"random_slots": False})
    assert world.extend(RECENT) == RECENT
    answers(world)
    for number in (2, 3, 4):
        add_version(world, number)
    return world


def test_a_plateau_without_finds_stops_when_a_training_is_due(settled_down: Any) -> None:
    settings = auto(settled_down)
    assert not tried(settled_down, settings, False)
    assert tried(settled_down, settings, True)
    because = settled_down.store.project(1).stopped
    assert "From v1 to v4 macro F1" in because and "The last 100 ranked reviews found 0 wrong labels" in because


def test_a_copy_of_an_earlier_version_is_none_of_the_four(settled_down: Any) -> None:
    with settled_down.store.begin() as session:
        session.get_one(Version, (1, 4)).verdict = {"by": "admin", "of": 1}
    assert not tried(settled_down, auto(settled_down), True)


def test_a_model_that_is_gone_or_finds_that_go_on_do_not_stop(settled_down: Any) -> None:
    (settled_down.registry.version(1, 1) / "predictions.npz").unlink()
    assert not tried(settled_down, auto(settled_down), True)
    shutil.copy(settled_down.registry.version(1, 2) / "predictions.npz", settled_down.registry.version(1, 1))
    with settled_down.store.begin() as session:
        for row in session.scalars(select(Annotation).where(Annotation.id <= 10)):
            row.labels = {"bom": ["malignant"]}
    assert not tried(settled_down, auto(settled_down), True)


def test_without_a_model_nothing_is_enough(world: Any) -> None:
    with world.store.begin() as session:
        session.get_one(Project, 1).version = None
    assert not tried(world, auto(world, budget_annotations=1), True)


def test_the_order_goes_on_and_says_that_enough_is_reviewed(world: Any) -> None:
    world.extend(20)
    ending.stop(world.store, 1, "enough", "command line")
    assert world.extend(30) == 30
    rows = world.published()
    assert {row.kind for row in rows[20:]} > {"ranked", "blind"}
    for place, row in enumerate(rows):
        assert row.why.endswith(ENOUGH) is (place >= 20)
        shown = [result["value"]["text"] for result in row.shown if result["type"] == "textarea"]
        assert shown == [[row.why]]
    ending.resume(world.store, 1, "go on")
    world.extend(10)
    assert not any(row.why.endswith(ENOUGH) for row in world.published()[50:])


def test_the_report_says_so(settled_down: Any) -> None:
    assert "Enough is reviewed. From v1 to v4" in render(gather(settled_down.store, settled_down.settings, 1))
    ending.stop(settled_down.store, 1, "it <b>is</b> enough", "command line")
    page = render(gather(settled_down.store, settled_down.settings, 1))
    assert "Stopped, no training comes unasked: it &lt;b&gt;is&lt;/b&gt; enough" in page


@pytest.fixture
def command(world: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    database = {"database_url": f"sqlite:///{tmp_path / 'store.db'}"}
    monkeypatch.setattr(chosen, "settings", lambda: world.settings.model_copy(update=database))
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def test_status_shows_what_others_wrote_as_they_wrote_it(world: Any, command: Callable[..., Result]) -> None:
    with world.store.begin() as session:
        project = session.get_one(Project, 1)
        project.title, project.probabilities = "Nodules [/bold]", "oof[/x].csv"
        project.alarms = ["at Ward [/red] the confidence in bom does not hold"]
        session.get_one(Task, (1, 1)).problems = ["no class [/i]"]
        session.add(Job(project_id=1, kind="cycle", state="failed", created_at=0.0, error="no [/b]", reason="[/u]"))
    said = command("status")
    assert said.exit_code == 0, said.exception
    for written in ("Nodules [/bold]", "oof[/x].csv", "Ward [/red]", "no class [/i]", "no [/b] ([/u])"):
        assert written in said.stdout


def test_the_commands_stop_resume_and_say_so(world: Any, command: Callable[..., Result]) -> None:
    first = command("stop", "--project", "1", "--because", "the [ward] closes", "--json")
    assert first.exit_code == 0, first.output
    assert json.loads(first.stdout) == {"project": 1, "stopped": "the [ward] closes", "changed": True}
    again = command("stop")
    assert again.exit_code == 0 and "was stopped before: the [ward] closes" in again.stdout
    status = command("status")
    assert "stopped: no training comes unasked" in status.stdout
    assert "the [ward] closes" in " ".join(status.stdout.split())
    assert json.loads(command("status", "--json").stdout)["projects"][0]["training"]["stopped"] == "the [ward] closes"
    back = json.loads(command("resume", "--json").stdout)
    assert back == {"project": 1, "stopped": None, "changed": True}
    assert "was not stopped" in command("resume").stdout
    assert [event for event, _ in events(world)] == ["stopped", "resumed"]


def test_a_reason_is_a_reason_and_a_project_one_that_is_known(world: Any, command: Callable[..., Result]) -> None:
    blank = command("stop", "--because", " ")
    assert blank.exit_code == 1 and blank.stderr.startswith("--because is empty")
    unknown = command("stop", "--project", "9")
    assert unknown.exit_code == 1 and "name a project with --project: 1" in unknown.stderr
    assert world.store.project(1).stopped is None and events(world) == []


def test_status_shows_the_advice_and_what_more_reviews_buy(settled_down: Any, command: Callable[..., Result]) -> None:
    with settled_down.store.begin() as session:
        for row in session.scalars(select(Annotation).where(Annotation.id > 80)):
            session.delete(row)
    said = " ".join(command("status").stdout.split())
    assert "Go on reviewing: nothing says yet that it is enough." in said
    assert "no Too few ranked reviews of labels on record to tell: 80 of 100." in said
    assert "the next 20 reviews find" in said and "macro F1 after 40 more: 1.0" in said
