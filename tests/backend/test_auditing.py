"""`second-look audit` on the store and the model folders that a worker left."""

import csv
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from typer.testing import CliRunner, Result

from backend import kept_heads
from backend.cli import app, terminal
from backend.registry import Registry, save_json
from backend.settings import settings
from tasks import ledger
from tasks.audit import COLUMNS, moment
from tasks.recording import removed
from tasks.schema import parse_label_config
from tasks.store import Store
from tasks.tables import Published
from tasks.takeover import Changes, apply_page

CONFIG = """<View><Image name="image" value="$image"/>
<Choices name="bom" toName="image" model_current="$bom"><Choice value="benign"/><Choice value="malignant"/></Choices>
<Choices name="shape" toName="image" model_current="$shape"><Choice value="wider"/><Choice value="taller"/></Choices>
<TextArea name="why" toName="image" model_role="why" editable="false" maxSubmissions="1"/></View>"""
Run = Callable[..., Result]


def choice(name: str, answer: str, **more: Any) -> dict[str, Any]:
    return {"from_name": name, "to_name": "image", "type": "choices", "value": {"choices": [answer]}} | more


SUGGESTED = [choice("bom", "malignant", score=0.91), choice("shape", "taller", score=0.64)]


def task(number: int, updated: str, *annotations: dict[str, Any], by: int | None = None) -> dict[str, Any]:
    about = {"is_labeled": False, "total_annotations": len(annotations), "cancelled_annotations": 0}
    data = {"image": f"{number}.png", "bom": "benign", "shape": "wider"}
    who = [] if by is None else [{"user_id": by}]
    return about | {"id": number, "data": data, "annotations": annotations, "updated_at": updated, "updated_by": who}


def said(number: int, user: int, updated: str, *results: dict[str, Any], **more: Any) -> dict[str, Any]:
    about = {"id": number, "result": list(results), "created_at": "2026-01-02T00:00:00Z", "updated_at": updated}
    about |= {"completed_by": user, "updated_by": user, "lead_time": 12.4, "was_cancelled": False}
    return about | more


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """Task 1: imported, shown and corrected by user 4, edited by user 5. Task 2: deleted. Task 3: as it came."""
    monkeypatch.setenv("SECOND_LOOK_STATE_DIR", str(tmp_path))
    monkeypatch.setattr(terminal.console, "width", 140)
    settings.cache_clear()
    store, registry = Store.open(settings().database), Registry(tmp_path)
    store.register_project(1, CONFIG)
    schema = parse_label_config(CONFIG)

    def take(*rows: dict[str, Any]) -> None:
        with store.begin() as session:
            apply_page(session, 1, schema, list(rows), Changes())

    take(*(task(number, "2026-01-01T00:00:00Z") for number in (1, 2, 3)))
    with store.begin() as session:
        head = ledger.head(session, 1)
        path = registry.version(1, 7) / "model.json"
        save_json(path, {"ledger": kept_heads.as_json(head)})
        body = {"version": 7, "temperatures": {"bom": 1.318, "shape": 0.9}, "model": kept_heads.file_digest(path)}
        ledger.append(session, 1, "trained", body)
        more = {"rank": 2, "kind": "ranked", "why": "", "shown": SUGGESTED, "prediction_id": 70, "at": 0.0}
        session.add(Published(project_id=1, version=7, task_id=1, **more))
    first = said(9, 4, "2026-01-02T00:00:00Z", choice("bom", "malignant"), choice("shape", "wider"))
    first |= {"parent_prediction": 70}
    take(task(1, "2026-01-02T00:00:00Z", first))
    take(task(1, "2026-01-03T00:00:00Z", first | {"updated_at": "2026-01-03T00:00:00Z", "updated_by": 5}))
    with store.begin() as session:
        ledger.append(session, 1, "reopened", {"version": 7, "tasks": [1, 3]})
        removed(session, 1, [2])
        session.execute(text("UPDATE tasks SET deleted_at = 1.0 WHERE id = 2"))
    yield store
    settings.cache_clear()


@pytest.fixture
def run(store: Store) -> Run:
    return lambda *arguments: CliRunner().invoke(app, ["audit", *arguments])


def unguarded(store: Store, statement: str) -> None:
    with store.begin() as session:
        for name in ("update", "delete"):
            session.execute(text(f"DROP TRIGGER IF EXISTS ledger_refuses_{name}"))
        session.execute(text(statement))


def test_verify_says_that_all_is_whole(run: Run, store: Store) -> None:
    found = json.loads(run("verify", "--json").stdout)
    with store.begin() as session:
        head = ledger.head(session, 1)
    assert found == {"project": 1, "hash": head.hash, "length": 6, "kept_heads": 1, "broken": []}
    again = run("verify", "--head", f"{head.hash}:6")
    assert again.exit_code == 0
    assert "whole: 6 entries, 2 kept heads agree" in again.stdout.replace("\n", " ")
    assert "is no head" in run("verify", "--head", "5").stderr


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        ("UPDATE ledger SET actor = 5 WHERE annotation_id = 9 AND actor = 4", "entry 3: altered since it was written"),
        ("DELETE FROM ledger WHERE seq = 3", "entry 4: an entry before it was removed or moved"),
        ("DELETE FROM ledger", "model version 7 knows 1 entries, 0 are left: the end was cut off"),
        ("UPDATE annotations SET flagged = 1", "task 1: the store holds a flag for the expert, the ledger bom:"),
        ("UPDATE tasks SET deleted_at = NULL", "task 2: the store holds bom: benign; shape: wider, the ledger no such"),
    ],
)
def test_verify_finds_what_was_changed(run: Run, store: Store, statement: str, sentence: str) -> None:
    unguarded(store, statement)
    result = run("verify", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["broken"][0].startswith(sentence)


def test_verify_finds_a_cut_tail_and_a_changed_model(run: Run, store: Store, tmp_path: Path) -> None:
    before = json.loads(run("verify", "--json").stdout)
    path = Registry(tmp_path).version(1, 7) / "model.json"
    path.write_text(path.read_text() + " ")
    (sentence,) = json.loads(run("verify", "--json").stdout)["broken"]
    assert sentence == f"model version 7: {path} was altered since entry 2 named it"
    unguarded(store, "DELETE FROM ledger WHERE seq > 5")
    (sentence,) = json.loads(run("verify", "--json", "--head", f"{before['hash']}:6").stdout)["broken"]
    assert sentence == "the head you wrote down knows 6 entries, 5 are left: the end was cut off"


def test_replay_prints_the_label_set_of_a_moment(run: Run, store: Store) -> None:
    with store.begin() as session:
        times = [entry.at for entry in ledger.chain(session, 1)]
    recorded = {"bom": ["benign"], "shape": ["wider"]}
    line = {"adjudicated": [], "flagged": False, "labels": recorded}
    assert [json.loads(row) for row in run("replay", "--at", times[0]).stdout.splitlines()] == [
        line | {"task": number} for number in (1, 2, 3)
    ]
    corrected = {"bom": ["malignant"], "shape": ["wider"]}
    now = run("replay").stdout
    assert [json.loads(row) for row in now.splitlines()] == [
        {"task": 1, "labels": corrected, "adjudicated": ["bom", "shape"], "flagged": False},
        line | {"task": 3},
    ]
    assert run("replay", "--at", "2020-01-01").stdout == ""
    value = json.loads(run("replay", "--at", times[5], "--json").stdout)
    assert (value["project"], value["at"], len(value["tasks"])) == (1, moment(times[5]), 2)
    assert value["sha256"] == hashlib.sha256(now.encode()).hexdigest()
    assert "'noon' is no time" in run("replay", "--at", "noon").stderr


def test_export(run: Run, store: Store, tmp_path: Path) -> None:
    about = json.loads(run("export", str(tmp_path / "ledger.csv"), "--json").stdout)
    with (tmp_path / "ledger.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(COLUMNS)
    assert about["lines"] == len(rows) == 3 + 1 + 2 + 2 + 1
    assert [(row["action"], row["task"], row["actor"]) for row in rows] == [
        *(("imported", str(number), "") for number in (1, 2, 3)),
        ("", "", ""),
        ("corrected", "1", "4"),
        ("confirmed", "1", "5"),
        *(("reopened", number, "") for number in ("1", "3")),
        ("removed", "2", ""),
    ]
    assert (rows[4]["from"], rows[4]["to"]) == ("bom: benign; shape: wider", "bom: malignant; shape: wider")
    assert rows[4]["shown"] == "bom: malignant 91%; shape: taller 64%"

    # Who has nothing but the lines can check the chain.
    assert "6 entries" in run("export", str(tmp_path / "ledger.jsonl")).stdout.replace("\n", " ")
    previous = ledger.ROOT
    for line in (tmp_path / "ledger.jsonl").read_text().splitlines():
        entry = json.loads(line)
        names = ("previous", "project_id", "at", "event", "task_id", "annotation_id", "actor", "body")
        content = json.dumps([entry[name] for name in names], sort_keys=True, separators=(",", ":"))
        assert (entry["previous"], entry["hash"]) == (previous, hashlib.sha256(content.encode()).hexdigest())
        previous = entry["hash"]
    assert previous == about["hash"]
    assert ".csv or .jsonl" in run("export", str(tmp_path / "ledger.xlsx")).stderr


def test_show_answers_who_when_from_to_and_shown(run: Run, tmp_path: Path) -> None:
    value = json.loads(run("show", "--task", "1", "--json").stdout)
    assert value["holds"] == {"labels": {"bom": ["malignant"], "shape": ["wider"]}, "adjudicated": ["bom", "shape"]}
    assert [(row["action"], row["actor"]) for row in value["events"]] == [
        ("imported", None),
        ("corrected", 4),
        ("confirmed", 5),
        ("reopened", None),
    ]
    assert value["events"][1]["shown_version"] == 7
    screen = run("show", "--task", "1").stdout
    expected = ("user 4", "bom: benign → malignant", "v7, ranked", "bom: malignant 91%", "12.4", "bom 1.32, shape 0.90")
    assert [part for part in expected if part not in screen] == []
    assert "Task 2 of project 1: deleted" in run("show", "--task", "2").stdout
    assert "names no task 5" in run("show", "--task", "5").stderr


def test_masks_are_shown_by_their_number_and_replayed_whole(run: Run, store: Store) -> None:
    config = """<View><Image name="image" value="$image"/>
    <BrushLabels name="mask" toName="image"><Label value="nucleus"/></BrushLabels></View>"""
    store.register_project(2, config)
    with store.begin() as session:
        ledger.append(session, 2, "configured", {"label_config": config})
    value = {"format": "rle", "rle": [0] * 3000, "brushlabels": ["nucleus"]}
    regions = [{"id": str(place), "from_name": "mask", "type": "brushlabels", "value": value} for place in range(14)]
    drawn = said(9, 4, "2026-01-02T00:00:00Z", *regions)
    with store.begin() as session:
        apply_page(session, 2, parse_label_config(config), [task(1, "2026-01-02T00:00:00Z", drawn)], Changes())
    table = run("show", "--task", "1", "--project", "2").stdout
    assert "holds annotation 9 (mask: nucleus 14 regions)" in table
    assert "mask: · → nucleus 14 regions" in table.replace("\n", " ") and len(table) < 3000
    shown = json.loads(run("show", "--task", "1", "--project", "2", "--json").stdout)
    assert shown["holds"] == {"labels": {}, "adjudicated": [], "marks": {"9": {"mask": ["nucleus 14 regions"]}}}
    (line,) = run("replay", "--project", "2").stdout.splitlines()
    assert json.loads(line)["marks"] == [{"annotation": 9, "results": regions}]
    assert run("verify", "--project", "2").exit_code == 0
