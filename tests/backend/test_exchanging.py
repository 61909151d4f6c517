"""`second-look export` and `import` on a real Label Studio."""

import csv
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from sqlalchemy import select
from typer.testing import CliRunner

from backend import settings as chosen
from backend.cli import app
from backend.exchange import EVENT
from backend.label_studio import open_client
from backend.learning.folds import HOLDOUT
from backend.registry import Registry
from backend.scored import score
from backend.settings import Settings
from backend.snapshot import take
from demo.labelstudio import call
from tasks import audit, ledger, sync
from tasks.client import Client, LabelStudioError
from tasks.exchange import MASKS_ALONE
from tasks.rle import encode_mask
from tasks.schema import parse_label_config
from tasks.store import Store
from tasks.tables import Annotation, Entry, Project, Published, Task, Version

CONFIG = """<View><Image name="image" value="$image"/>
<TextArea name="why" toName="image" model_role="why" editable="false" maxSubmissions="1"/>
<Choices name="bom" toName="image" model_current="$bom" model_weight="0.9" required="true">
<Choice value="benign"/><Choice value="malignant"/></Choices>
<Choices name="foci" toName="image" model_current="$foci" choice="multiple">
<Choice value="rim"/><Choice value="dots"/></Choices></View>"""
SCHEMA = parse_label_config(CONFIG)
RECONCILE = sync.reconcile
MALIGNANT = np.array([0.1, 0.95, 0.4, 0.8, 0.7, 0.99], dtype=np.float32)  # of six tasks, all recorded as benign


class Desk:
    """Six tasks in Label Studio, all scored by version 1; the last one in the hold-out."""

    def __init__(self, server: Any, folder: Path, title: str, monkeypatch: pytest.MonkeyPatch) -> None:
        about = {"label_studio_url": server.url, "label_studio_token": server.token, "state_dir": folder}
        self.settings = Settings(**about)
        monkeypatch.setattr(chosen, "settings", lambda: self.settings)
        self.server, self.file = server, folder / "review.csv"
        self.store, self.client = Store.open(self.settings.database), open_client(self.settings)
        self.user = self.client.user()["id"]
        body = {"title": title, "label_config": CONFIG}
        self.project = call(server.admin, "POST", "/api/projects", json=body)["id"]
        rows = [{"image": f"=/{number}.png", "bom": "benign", "foci": "rim"} for number in range(len(MALIGNANT))]
        call(server.admin, "POST", f"/api/projects/{self.project}/import", json=rows)
        self.store.register_project(self.project, CONFIG)
        sync.reconcile(self.store, self.client, self.project)
        with self.store.begin() as session:
            tasks = session.scalars(select(Task).order_by(Task.id)).all()
            self.ids = [task.id for task in tasks]
            tasks[-1].fold = HOLDOUT
            more = {"created_at": 0.0, "seconds": 1.0, "schema": SCHEMA.fingerprint(), "labels": 0, "metrics": {}}
            session.add(Version(project_id=self.project, number=1, **more))
            session.get_one(Project, self.project).version = 1
        taken = take(self.store, CONFIG, self.project, unread=True)
        half = np.full((1, len(MALIGNANT), 2), 0.25, dtype=np.float32)
        members = {"bom": np.stack([1 - MALIGNANT, MALIGNANT], axis=1)[None], "foci": half}
        blocks = [(np.arange(len(MALIGNANT)), members)]
        scored = score(taken.ids, np.full(len(taken.ids), ""), SCHEMA.heads, blocks, taken.recorded, "entropy")
        scored.save(Registry(folder).version(self.project, 1) / "predictions.npz")

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(app, [*arguments, "--project", str(self.project)])

    def value(self, *arguments: str) -> dict[str, Any]:
        result = self.run(*arguments, "--json")
        assert result.exit_code == 0, result.output
        found: dict[str, Any] = json.loads(result.stdout)
        return found

    def rows(self) -> list[dict[str, str]]:
        with self.file.open(encoding="utf-8-sig", newline="") as file:
            return list(csv.DictReader(file))

    def decide(self, *choices: dict[str, str]) -> None:
        """Write these decisions into the first rows, as an Excel of Europe does."""
        rows = self.rows()
        rows = [row | more for row, more in zip(rows, [*choices, *[{}] * len(rows)], strict=False)]
        with self.file.open("w", encoding="utf-8-sig", newline="") as file:
            table = csv.DictWriter(file, rows[0], delimiter=";")
            table.writeheader()
            table.writerows(rows)

    def remote(self) -> dict[int, list[dict[str, Any]]]:
        """The annotations of each task as Label Studio shows them."""
        return {
            row["id"]: row["annotations"]
            for page in self.client.tasks_by_id(self.project, self.ids)
            for row in page
            if row["annotations"]
        }

    def stored(self) -> dict[int, Annotation]:
        with self.store.begin() as session:
            return {row.id: row for row in session.scalars(select(Annotation).where(Annotation.deleted_at.is_(None)))}

    def entries(self) -> list[Entry]:
        with self.store.begin() as session:
            return list(session.scalars(select(Entry).order_by(Entry.seq)))

    def assert_whole(self) -> None:
        """The ledger is unbroken, and says of every task what the store and Label Studio say."""
        with self.store.begin() as session:
            assert ledger.verify(session, self.project) == []
            replayed = audit.replay(ledger.chain(session, self.project))
            assert audit.differences(replayed, audit.stored(session, self.project)) == []
        there = {row["id"]: (task, row["result"]) for task, rows in self.remote().items() for row in rows}
        assert {number: (row.task_id, row.result) for number, row in self.stored().items()} == there


@pytest.fixture
def desk(
    label_studio: Any, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Desk]:
    desk = Desk(label_studio, tmp_path, request.node.name[:50], monkeypatch)
    yield desk
    desk.client.close()


def result(**answers: str) -> list[dict[str, Any]]:
    return [
        {"id": name, "from_name": name, "to_name": "image", "type": "choices", "value": {"choices": [answer]}}
        for name, answer in answers.items()
    ]


def test_export_is_in_the_order_of_suspicion(desk: Desk) -> None:
    first, second, *_ = desk.ids
    desk.client.add_annotation(first, result(bom="benign", foci="rim"))
    sync.reconcile(desk.store, desk.client, desk.project)
    with desk.store.begin() as session:
        session.get_one(Project, desk.project).published = 1
        for rank, (task, kind) in enumerate(((second, "ranked"), (desk.ids[2], "blind"))):
            about = {"rank": rank, "kind": kind, "why": f"As published, {kind}.", "shown": [], "at": 0.0}
            session.add(Published(project_id=desk.project, version=1, task_id=task, **about))
    told = desk.value("export", str(desk.file))
    assert (told["tasks"], told["withheld"], told["version"]) == (4, 2, 1)  # without the hold-out and the blind one
    rows = desk.rows()
    assert [int(row["task"]) for row in rows] == [second, desk.ids[3], desk.ids[4], first]
    assert desk.file.read_bytes().startswith(b"\xef\xbb\xbf")
    expected = {"image": "'=/1.png", "bom_current": "benign", "bom_prediction": "malignant", "bom": "", "foci": ""}
    expected |= {"bom_confidence": "0.9500", "bom_suspicion": "0.9500", "reason": "As published, ranked."}
    expected |= {"foci_current": "rim", "foci_prediction": "(none)", "foci_confidence": "0.7500"}
    assert rows[0].items() >= expected.items()
    assert "malignant 80 %" in rows[1]["reason"]
    assert (rows[3]["bom_current"], rows[3]["bom_suspicion"]) == ("benign", "")  # a person has decided
    assert desk.value("export", str(desk.file), "--top", "2")["tasks"] == 2
    assert [int(row["task"]) for row in desk.rows()] == [second, desk.ids[3]]


def test_decisions_become_annotations_of_a_person_and_twice_the_same_file_changes_nothing(desk: Desk) -> None:
    desk.value("export", str(desk.file))
    order = [int(row["task"]) for row in desk.rows()]
    # A task that somebody else has labelled is closed, and takes a second opinion all the same.
    call(
        desk.server.annotator,
        "POST",
        f"/api/tasks/{order[2]}/annotations/",
        json={"result": result(bom="benign", foci="rim"), "project": desk.project},
    )
    desk.decide({"bom": "malignant"}, {"bom": "benign", "foci": "rim|dots"}, {"bom": "malignant", "foci": "(none)"})
    dry = desk.value("import", str(desk.file), "--dry-run")
    assert (dry["to_apply"], dry["applied"], dry["decided"], dry["rows"]) == (3, 0, 3, 5)
    assert list(desk.remote()) == [order[2]]
    told = desk.value("import", str(desk.file))
    assert (told["applied"], told["as_they_were"], told["gone"]) == (3, 0, [])

    mine = {row.task_id: row for row in desk.stored().values() if row.completed_by == desk.user}
    assert {task: row.labels for task, row in mine.items()} == {
        order[0]: {"bom": ["malignant"], "foci": ["rim"]},
        order[1]: {"bom": ["benign"], "foci": ["rim", "dots"]},
        order[2]: {"bom": ["malignant"], "foci": []},
    }
    assert {(row.origin, row.updated_by, row.parent_prediction) for row in mine.values()} == {
        ("person", desk.user, None)
    }
    taken = take(desk.store, CONFIG, desk.project, unread=True)  # what a training learns from
    rows = [desk.ids.index(task) for task in order[:3]]
    assert taken.adjudicated["bom"][rows].all() and taken.adjudicated["bom"].sum() == 3
    assert taken.targets["bom"][rows].tolist() == [[0, 1], [1, 0], [0, 1]]
    desk.assert_whole()

    entries = desk.entries()
    created = {entry.task_id: entry for entry in entries if entry.event == "created" and entry.actor == desk.user}
    assert [created[task].body["action"] for task in order[:3]] == ["corrected"] * 3
    by_file = entries[-1]
    assert (by_file.event, by_file.actor) == (EVENT, desk.user)
    assert by_file.body["sha256"] == hashlib.sha256(desk.file.read_bytes()).hexdigest()
    assert by_file.body["rows"][0] == {
        "task": order[0],
        "annotation": mine[order[0]].id,
        "line": 2,
        "shown": {"bom_prediction": "malignant", "bom_confidence": "0.9500"},
    }

    before = desk.remote()
    again = desk.value("import", str(desk.file))
    assert (again["applied"], again["imported_before"]) == (0, by_file.at)
    desk.file.write_bytes(desk.file.read_bytes() + b"\r\n")  # other bytes, the same decisions
    saved_anew = desk.value("import", str(desk.file))
    assert (saved_anew["applied"], saved_anew["as_they_were"], saved_anew["imported_before"]) == (0, 3, None)
    assert desk.remote() == before
    assert len(desk.entries()) == len(entries)


def test_nothing_of_a_bad_file_is_applied(desk: Desk) -> None:
    desk.value("export", str(desk.file))
    order = [int(row["task"]) for row in desk.rows()]
    call(desk.server.admin, "DELETE", f"/api/tasks/{order[1]}/")
    call(desk.server.admin, "PATCH", f"/api/tasks/{order[2]}/", json={"data": {"image": "x", "bom": "malignant"}})
    desk.decide({"bom": "malignant"}, {"bom": "malignant"}, {"bom": "malignant", "foci": "rim"}, {"bom": "evil"})
    result = desk.run("import", str(desk.file))
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-5:] == [
        f"line 3: deleted in Label Studio: task {order[1]}",
        f"line 4: task {order[2]}: the label of 'bom' has changed since the export: 'benign' then, 'malignant' now",
        f"line 4: task {order[2]}: the label of 'foci' has changed since the export: 'rim' then, '' now",
        "line 5: 'evil' is no class of 'bom' (benign, malignant)",
        "nothing was applied",
    ]
    in_json = desk.run("import", str(desk.file), "--json")
    assert [fault["line"] for fault in json.loads(in_json.stdout)["faults"]] == [3, 4, 4, 5]
    assert desk.remote() == {}
    assert not any(entry.event in (EVENT, "created") for entry in desk.entries())


@pytest.mark.parametrize("killed", [True, False])
def test_an_import_that_was_cut_off_goes_on(desk: Desk, monkeypatch: pytest.MonkeyPatch, killed: bool) -> None:
    desk.value("export", str(desk.file))
    order = [int(row["task"]) for row in desk.rows()]
    desk.decide({"bom": "malignant"}, {"bom": "malignant"}, {"bom": "malignant"})
    real = Client.add_annotation

    def cut_off(client: Client, task: int, result: list[dict[str, Any]]) -> int | None:
        if task != order[1]:
            return real(client, task, result)
        if not killed:
            raise LabelStudioError("POST: 500 out of disk", 500)
        monkeypatch.setattr(sync, "reconcile", lambda *_: None)  # who is killed reads nothing back
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Client, "add_annotation", cut_off)
        told = desk.run("import", str(desk.file))
    assert list(desk.remote()) == [order[0]]
    if killed:
        assert desk.stored() == {}
        monkeypatch.setattr(sync, "reconcile", RECONCILE)
    else:
        assert told.exit_code == 1 and "500 out of disk" in told.stderr and "run the import again" in told.stderr
        desk.assert_whole()
    again = desk.value("import", str(desk.file))
    assert (again["applied"], again["as_they_were"]) == (2, 1)
    assert {task: len(rows) for task, rows in desk.remote().items()} == dict.fromkeys(order[:3], 1)
    assert desk.entries()[-1].body["tasks"] == order[:3]
    desk.assert_whole()


def test_a_task_that_is_deleted_under_the_import_is_named_and_the_others_are_annotated(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.value("export", str(desk.file))
    order = [int(row["task"]) for row in desk.rows()]
    desk.decide({"bom": "malignant"}, {"bom": "malignant"})
    real = Client.add_annotation

    def deleted_before(client: Client, task: int, result: list[dict[str, Any]]) -> int | None:
        if task == order[0]:
            call(desk.server.admin, "DELETE", f"/api/tasks/{task}/")
        return real(client, task, result)

    with monkeypatch.context() as patch:
        patch.setattr(Client, "add_annotation", deleted_before)
        told = desk.run("import", str(desk.file))
    assert told.exit_code == 1
    assert f"deleted in the meantime: tasks {order[0]}" in told.stdout
    assert list(desk.remote()) == [order[1]]
    desk.assert_whole()


def test_without_a_model_there_is_nothing_to_export(desk: Desk) -> None:
    with desk.store.begin() as session:
        session.get_one(Project, desk.project).version = None
    told = desk.run("export", str(desk.file))
    assert told.exit_code == 1 and "has no model yet" in told.stderr
    assert not desk.file.exists()


BRUSH = '<BrushLabels name="mask" toName="image"><Label value="nodule"/></BrushLabels>'


def test_a_decision_leaves_what_the_reviewer_marked_as_it_was(desk: Desk) -> None:
    both = {"label_config": CONFIG.replace("</View>", f"{BRUSH}</View>")}
    call(desk.server.admin, "PATCH", f"/api/projects/{desk.project}", json=both)
    sync.reconcile(desk.store, desk.client, desk.project)
    value = {"format": "rle", "rle": encode_mask(np.eye(9, dtype=np.uint8)), "brushlabels": ["nodule"]}
    size = {"original_width": 9, "original_height": 9}
    region = {"id": "m1", "from_name": "mask", "to_name": "image", "type": "brushlabels", "value": value} | size
    body = {"result": [*result(bom="benign", foci="rim"), region], "lead_time": 3.0}
    call(desk.server.admin, "POST", f"/api/tasks/{desk.ids[1]}/annotations/", json=body)
    assert desk.value("export", str(desk.file))["tasks"] == 5
    place = [int(row["task"]) for row in desk.rows()].index(desk.ids[1])
    desk.decide(*[{}] * place, {"bom": "malignant"})
    assert desk.value("import", str(desk.file))["applied"] == 1
    made = max(desk.remote()[desk.ids[1]], key=lambda row: row["id"])
    assert {part["from_name"]: part["value"] for part in made["result"]} == {
        "bom": {"choices": ["malignant"]},
        "foci": {"choices": ["rim"]},
        "mask": value,
    }
    desk.assert_whole()


def test_masks_alone_have_no_place_in_a_spreadsheet(desk: Desk) -> None:
    desk.file.write_text("task,bom_current,bom\n")
    with desk.store.begin() as session:
        alone = f'<View><Image name="image" value="$image"/>{BRUSH}</View>'
        session.get_one(Project, desk.project).label_config = alone
    for command in ("export", "import"):
        told = desk.run(command, str(desk.file))
        assert told.exit_code == 1
        assert told.stderr == f"project {desk.project}: {MASKS_ALONE}\n"
    assert desk.file.read_text() == "task,bom_current,bom\n"
