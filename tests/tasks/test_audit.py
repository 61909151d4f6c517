"""The label set of any moment, rebuilt from the ledger, against the store as it was at that moment."""

import json
import random
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from tasks import audit, ledger
from tasks.schema import parse_label_config
from tasks.store import Store
from tasks.tables import Annotation, Entry, Published, Task
from tasks.takeover import Changes, apply_page, forget

CONFIG = """<View><Image name="image" value="$image"/>
<Choices name="bom" toName="image" model_current="$bom"><Choice value="benign"/><Choice value="malignant"/></Choices>
<Choices name="foci" toName="image" choice="multiple"><Choice value="none"/><Choice value="rim"/></Choices>
<Choices name="flag" toName="image" choice="multiple" model_role="flag"><Choice value="expert"/></Choices>
<TextArea name="why" toName="image" model_role="why" editable="false" maxSubmissions="1"/></View>"""
CONFIGS = [CONFIG, CONFIG.replace(' model_current="$bom"', ""), CONFIG.replace(' model_role="flag"', "")]


@dataclass
class Server:
    """What Label Studio would show: tasks with annotations, numbered as on SQLite, where deleted numbers come back."""

    rng: random.Random
    tasks: dict[int, dict[str, Any]] = field(default_factory=dict)
    clock: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    def tick(self) -> str:
        self.clock += timedelta(seconds=self.rng.choice([0, 1, 7]))  # changes may share a time
        return self.clock.isoformat()

    def touch(self, task: int, user: int) -> None:
        self.tasks[task] |= {"updated_at": self.tick(), "updated_by": [{"user_id": user}]}

    def add(self, user: int) -> None:
        task = max(self.tasks, default=0) + 1
        data = {"image": f"{task}.png", "bom": self.rng.choice(["benign", "malignant", "", "nonsense"])}
        self.tasks[task] = {"id": task, "data": data, "is_labeled": False, "annotations": []}
        self.tasks[task] |= {"total_annotations": 0, "cancelled_annotations": 0}
        self.touch(task, user)

    def annotations(self) -> list[tuple[int, dict[str, Any]]]:
        return [(task, said) for task, row in self.tasks.items() for said in row["annotations"]]

    def result(self) -> list[dict[str, Any]]:
        answers = {"bom": self.rng.choice(["benign", "malignant"]), "foci": self.rng.choice(["none", "rim"])}
        answers |= {"flag": "expert"} if self.rng.random() < 0.2 else {}
        return [
            {"from_name": name, "to_name": "image", "type": "choices", "value": {"choices": [answer]}}
            for name, answer in answers.items()
            if self.rng.random() < 0.8
        ]

    def act(self) -> None:
        """One thing that a person does."""
        user, task, there = self.rng.choice([3, 4, 5]), self.rng.choice([*self.tasks, None]), self.annotations()
        match self.rng.choices(["submit", "edit", "delete", "patch", "add", "remove"], [9, 5, 4, 3, 3, 1])[0]:
            case "submit" if task is not None:
                now = self.tick()
                person = self.rng.random() < 0.8
                said = {"id": max((row["id"] for _, row in there), default=0) + 1, "result": self.result()}
                said |= {"created_at": now, "updated_at": now, "completed_by": user, "lead_time": 4.5}
                said |= {"updated_by": user if person else None, "was_cancelled": self.rng.random() < 0.1}
                said |= {"parent_prediction": self.rng.choice([None, 7])}
                self.tasks[task]["annotations"].append(said)
                self.touch(task, user)
            case "edit" if there:
                task, said = self.rng.choice(there)
                said |= {"result": self.result(), "updated_by": user, "updated_at": self.tick()}
                self.touch(task, user)
            case "delete" if there:
                task, said = self.rng.choice(there)
                self.tasks[task]["annotations"].remove(said)
                self.touch(task, user)
            case "patch" if task is not None:
                self.tasks[task]["data"] |= {"bom": self.rng.choice(["benign", "malignant", ""])}
                self.touch(task, user)
            case "remove" if task is not None:
                del self.tasks[task]
            case _:
                self.add(user)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.open(f"sqlite:///{tmp_path / 'store.db'}")
    store.register_project(1, CONFIG)
    return store


def reconcile(store: Store, server: Server, config: str, full: bool) -> None:
    """As sync.reconcile does, a page of three tasks a transaction."""
    changes, schema = Changes(full=full), parse_label_config(config)
    rows = [json.loads(json.dumps(row)) for _, row in sorted(server.tasks.items())]
    for start in range(0, len(rows), 3):
        with store.begin() as session:
            apply_page(session, 1, schema, rows[start : start + 3], changes)
    if full:
        with store.begin() as session:
            forget(session, 1, list(server.tasks), changes)


def held(store: Store) -> bytes:
    with store.snapshot() as session:
        return "".join(audit.stored(session, 1).lines()).encode()


def replayed(store: Store, at: str | None = None) -> bytes:
    with store.snapshot() as session:
        return "".join(audit.replay(ledger.chain(session, 1), at).lines()).encode()


@pytest.mark.parametrize("seed", range(12))
def test_the_label_set_of_every_moment_comes_back_byte_for_byte(store: Store, seed: int) -> None:
    rng = random.Random(seed)
    server, moments = Server(rng), {}
    config, before = CONFIG, audit.moment("now")
    for turn in range(25):
        for _ in range(rng.randrange(4)):
            server.act()
        changed = rng.random() < 0.1
        config = rng.choice(CONFIGS) if changed else config
        reconcile(store, server, config, full=changed or rng.random() < 0.3 or turn == 24)
        with store.begin() as session:  # as the ledger's own clock shows it
            last = session.scalars(select(Entry.at).order_by(Entry.seq.desc()).limit(1)).first()
        for at in (last or before, max(last or before, audit.moment("now"))):  # from its commit until the next
            moments[at] = held(store)
    for at, lines in moments.items():
        assert replayed(store, at) == lines
    assert len(set(moments.values())) > 10
    assert replayed(store) == held(store)
    assert replayed(store, before) == b""
    with store.snapshot() as session:
        assert ledger.verify(session, 1) == []
        assert audit.differences(audit.replay(ledger.chain(session, 1)), audit.stored(session, 1)) == []
        living = {row.id for row in session.scalars(select(Task).where(Task.deleted_at.is_(None)))}
    assert living == set(server.tasks) == {json.loads(line)["task"] for line in held(store).splitlines()}


def page(*rows: dict[str, Any]) -> list[dict[str, Any]]:
    about = {"is_labeled": False, "total_annotations": 0, "cancelled_annotations": 0, "annotations": []}
    return [about | {"updated_at": "2026-01-01T00:00:00Z", "updated_by": []} | row for row in rows]


def take(store: Store, *rows: dict[str, Any], config: str = CONFIG, full: bool = False) -> None:
    with store.begin() as session:
        apply_page(session, 1, parse_label_config(config), page(*rows), Changes(full=full))


def entries(store: Store) -> list[Entry]:
    with store.begin() as session:
        return list(ledger.chain(session, 1))


def said(number: int, *answers: str, user: int = 4, **more: Any) -> dict[str, Any]:
    when = f"2026-01-02T00:00:{number:02d}Z"
    result = [
        {"from_name": name, "to_name": "image", "type": "choices", "value": {"choices": [answer]}}
        for name, answer in (pair.split("=") for pair in answers)
    ]
    about = {"id": number, "result": result, "created_at": when, "updated_at": when, "lead_time": 6.5}
    return about | {"completed_by": user, "updated_by": user, "was_cancelled": False} | more


def test_an_import_is_one_entry_a_page_and_tells_causes_apart(store: Store) -> None:
    data = [{"image": f"{task}.png", "bom": "benign"} for task in range(200)]
    rows = [{"id": task, "data": about} for task, about in enumerate(data)]
    take(store, *rows)
    take(store, *rows)
    (imported,) = entries(store)
    assert (imported.event, len(imported.body["to"]), imported.body["from"]) == ("recorded", 200, {})

    moved = {"updated_at": "2026-01-03T00:00:00Z", "updated_by": [{"user_id": 4}]}
    changed = rows[7] | moved | {"data": data[7] | {"bom": "malignant"}}
    hidden = rows[8] | moved | {"data": data[8] | {"bom": ""}, "annotations": [said(1, "bom=benign", user=3)]}
    take(store, changed, hidden)
    recorded, created = entries(store)[1:]
    assert recorded.body == {
        "to": {"7": {"bom": ["malignant"]}, "8": {}},
        "from": {"7": {"bom": ["benign"]}, "8": {"bom": ["benign"]}},
        "by": {"7": 4},  # of task 8 nobody can tell: it was annotated as well
    }
    assert (created.event, created.actor, created.body["action"]) == ("created", 3, "labelled")
    take(store, *rows[:3], config=CONFIGS[1], full=True)
    (reread,) = entries(store)[3:]
    assert reread.body["because"] == "the label config changed"
    assert reread.body["to"] == {"0": {}, "1": {}, "2": {}}
    table = [row for entry in entries(store) for row in audit.rows(entry)]
    assert len(table) == 200 + 2 + 1 + 3
    assert {tuple(row) for row in table} == {audit.COLUMNS}
    ours = [row for row in table if row["task"] == 7]
    assert [(row["action"], row["actor"], row["from"], row["to"]) for row in ours] == [
        ("imported", None, None, {"bom": ["benign"]}),
        ("recorded", 4, {"bom": ["benign"]}, {"bom": ["malignant"]}),
    ]


def test_what_was_shown_stays_as_published_under_its_version_and_model(store: Store) -> None:
    suggested = [
        {"from_name": "bom", "type": "choices", "value": {"choices": ["malignant"]}, "score": 0.913},
        {"from_name": "stars", "type": "rating", "value": {"rating": 4}, "score": 0.5},
        {"from_name": "why", "type": "textarea", "value": {"text": ["they disagree"]}},
    ]
    row = {"id": 1, "data": {"image": "1.png", "bom": "benign"}}
    take(store, row)
    with store.begin() as session:
        for version, kind, shown in ((1, "ranked", suggested), (2, "blind", suggested[2:])):
            ledger.append(session, 1, "trained", {"version": version, "model": f"digest {version}"})
            more = {"rank": 0, "kind": kind, "why": "", "shown": shown, "prediction_id": 70 + version, "at": 0.0}
            session.add(Published(project_id=1, version=version, task_id=1, **more))
    earlier = [*suggested[:2], {"from_name": "why", "type": "textarea", "value": {"text": ["before"]}}]
    with store.begin() as session:  # shown anew, since its image had changed
        body = {"version": 1, "prediction": 71, "from": earlier[1:], "to": suggested}
        ledger.append(session, 1, "renewed", body, task_id=1)
    answers = [said(number, "bom=malignant", parent_prediction=parent) for number, parent in enumerate([71, 72, 99], 1)]
    opened_before = said(5, "bom=malignant", parent_prediction=71)
    opened_before["result"].append(earlier[2] | {"to_name": "image"})
    answers += [said(4, "bom=malignant"), opened_before]
    take(store, row | {"annotations": answers, "updated_at": "2026-01-03T00:00:00Z"})
    with store.begin() as session:  # whatever becomes of the published order
        for published in session.scalars(select(Published)):
            session.delete(published)
    found = [row for entry in entries(store) for row in audit.rows(entry) if entry.event == "created"]
    assert [(row["shown"], row["shown_version"], row["shown_model"], row["shown_kind"]) for row in found] == [
        ("bom: malignant 91%; stars: 4 50%", 1, "digest 1", "ranked"),
        ("no suggestion", 2, "digest 2", "blind"),
        ("prediction 99, which was none of a published order", None, None, None),
        ("nothing", None, None, None),
        ("stars: 4 50%", 1, "digest 1", "ranked"),
    ]
    assert [row["action"] for row in found] == ["corrected", *["confirmed"] * 4]
    cells = dict(zip(audit.COLUMNS, audit.cells(found[0]), strict=True))
    assert (cells["from"], cells["to"]) == ("bom: benign", "bom: malignant; foci: -")
    assert (cells["lead_time"], cells["because"], cells["actor"]) == ("6.5", "", "4")


def test_a_store_that_says_something_else_than_the_ledger_is_found(store: Store) -> None:
    take(store, *({"id": task, "data": {"image": "i.png", "bom": "benign"}} for task in (1, 2, 3)))
    take(store, {"id": 2, "data": {"image": "i.png", "bom": "benign"}, "annotations": [said(5, "bom=malignant")]})

    def found() -> list[str]:
        with store.snapshot() as session:
            return audit.differences(audit.replay(ledger.chain(session, 1)), audit.stored(session, 1))

    assert found() == []
    with store.begin() as session:
        session.get_one(Task, (1, 1)).current = {"bom": ["malignant"]}
        session.get_one(Annotation, (1, 5)).flagged = True
        session.get_one(Task, (1, 3)).deleted_at = 1.0
    assert found() == [
        "task 1: the store holds bom: malignant, the ledger bom: benign",
        "task 2: the store holds a flag for the expert, the ledger bom: malignant; foci: -",
        "task 3: the store holds no such task, the ledger bom: benign",
    ]


def test_a_flag_and_what_settles_it_replay_as_they_were(store: Store) -> None:
    task = {"id": 1, "data": {"image": "i.png", "bom": "benign"}}
    flagged = said(1, "bom=benign", "flag=expert", user=3, parent_prediction=7)
    queued = said(2, "bom=benign", user=5, parent_prediction=7)
    expert = said(3, "bom=malignant", user=6)
    for seen in ([flagged], [flagged, queued], [flagged, queued, expert]):
        take(store, task | {"updated_at": seen[-1]["updated_at"], "annotations": seen})
        with store.snapshot() as session:
            replayed = audit.replay(ledger.chain(session, 1))
            assert audit.differences(replayed, audit.stored(session, 1)) == []
        ((_, settled),) = replayed.settled()
        assert settled.flagged == (expert not in seen)
    assert settled.labels["bom"] == ("malignant",)


def test_times() -> None:
    assert audit.moment("2026-01-31T14:00+02:00") == "2026-01-31T12:00:00.000000+00:00"
    assert audit.moment("2026-01-31T14:00:00.5Z") == "2026-01-31T14:00:00.500000+00:00"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00", audit.moment("now"))
    assert audit.moment("2026-01-31") == datetime(2026, 1, 31).astimezone(UTC).isoformat(timespec="microseconds")
    with pytest.raises(ValueError, match="'yesterday' is no time"):
        audit.moment("yesterday")
