import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select, text, update
from sqlalchemy.exc import DBAPIError

from tasks import ledger, referred
from tasks.codec import decode_result
from tasks.ledger import Head
from tasks.schema import parse_label_config
from tasks.store import Store
from tasks.tables import Annotation, Entry

UNGUARD = {
    "sqlite": ["DROP TRIGGER ledger_refuses_update", "DROP TRIGGER ledger_refuses_delete"],
    "postgresql": ["ALTER TABLE ledger DISABLE TRIGGER ledger_append_only"],
}


def filled(url: str) -> Store:
    store = Store.open(url)
    for project in (1, 2):
        store.register_project(project, "<View/>")
    with store.begin() as session:
        for number in range(5):
            body = {"from": {}, "to": {"bom": ("malignant",)}, "lead_time": number / 3, "note": "é"}
            ledger.append(session, 1, "created", body, task_id=number, annotation_id=number, actor=7)
            ledger.append(session, 2, "trained", {"version": number})
    return store


def unguarded(store: Store) -> Store:
    """As somebody makes it who has the whole database in his hands."""
    with store.begin() as session:
        for statement in UNGUARD[store.engine.dialect.name]:
            session.execute(text(statement))
    return store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return unguarded(filled(f"sqlite:///{tmp_path / 'store.db'}"))


@pytest.fixture(params=["sqlite", "postgresql"])
def guarded(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "sqlite":
        return filled(f"sqlite:///{tmp_path / 'store.db'}")
    return filled(request.getfixturevalue("postgresql")())


def broken(store: Store, project: int = 1) -> list[str]:
    with store.begin() as session:
        return ledger.verify(session, project)


def entries(store: Store, project: int = 1) -> list[Entry]:
    with store.begin() as session:
        return list(session.scalars(select(Entry).where(Entry.project_id == project).order_by(Entry.seq)))


def change(store: Store, number: int, **values: Any) -> None:
    with store.begin() as session:
        session.execute(update(Entry).where(Entry.seq == number).values(**values))


def test_each_project_has_a_whole_chain(store: Store) -> None:
    assert broken(store) == broken(store, 2) == []
    chain = entries(store)
    assert [entry.previous for entry in chain] == [ledger.ROOT, *(entry.hash for entry in chain[:-1])]
    assert chain[2].body == {"from": {}, "to": {"bom": ["malignant"]}, "lead_time": 2 / 3, "note": "é"}


@pytest.mark.parametrize(
    "values",
    [
        {"body": {"to": {"bom": ["benign"]}}},
        {"actor": 8},
        {"actor": None},
        {"task_id": 3},
        {"annotation_id": 3},
        {"event": "changed"},
        {"at": "2020-01-01T00:00:00+00:00"},
    ],
)
def test_an_altered_entry_is_found(store: Store, values: dict[str, Any]) -> None:
    altered = entries(store)[2].seq
    change(store, altered, **values)
    assert broken(store) == [f"entry {altered}: altered since it was written"]
    # Rehashing it moves the break to the entry after it.
    with store.begin() as session:
        entry = session.get_one(Entry, altered)
        entry.hash = ledger.digest(entry)
    assert broken(store) == [f"entry {entries(store)[3].seq}: an entry before it was removed or moved"]


@pytest.mark.parametrize("place", [0, 2])
def test_a_removed_entry_is_found(store: Store, place: int) -> None:
    chain = entries(store)
    with store.begin() as session:
        session.execute(delete(Entry).where(Entry.seq == chain[place].seq))
    assert broken(store) == [f"entry {chain[place + 1].seq}: an entry before it was removed or moved"]


def test_moved_entries_are_found(store: Store) -> None:
    first, second = (entry.seq for entry in entries(store)[1:3])
    for before, after in ((first, 1000), (second, first), (1000, second)):
        change(store, before, seq=after)
    assert len(broken(store)) == 3
    assert all("removed or moved" in sentence for sentence in broken(store))


def test_an_entry_moved_to_another_project_is_found(store: Store) -> None:
    last = entries(store)[-1].seq
    change(store, last, project_id=2)
    assert f"entry {last}: altered since it was written" in broken(store, 2)


def test_appends_at_the_same_time_make_one_chain(guarded: Store) -> None:
    """Each in a transaction of its own, which has read before it writes, as reconcile and cycle do."""
    store = guarded
    start, errors = threading.Barrier(4), []

    def write(number: int) -> None:
        start.wait()
        try:
            for turn in range(15):
                with store.begin() as session:
                    session.scalars(select(Annotation)).all()
                    for _ in range(2):
                        ledger.append(session, 1, "created", {"by": number, "turn": turn})
        except Exception as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert broken(store) == []
    assert len(entries(store)) == 5 + 4 * 15 * 2
    for number in range(4):
        turns = [entry.body["turn"] for entry in entries(store) if entry.body.get("by") == number]
        assert turns == sorted([*range(15)] * 2)


def test_what_is_rolled_back_leaves_no_trace(store: Store) -> None:
    with pytest.raises(RuntimeError), store.begin() as session:
        ledger.append(session, 1, "created", {})
        raise RuntimeError
    assert len(entries(store)) == 5
    assert broken(store) == []


@pytest.mark.parametrize(
    "statement",
    ["UPDATE ledger SET actor = 8 WHERE task_id = 2", "DELETE FROM ledger", "UPDATE ledger SET seq = seq + 100"],
)
def test_the_database_refuses_changes(guarded: Store, statement: str) -> None:
    with pytest.raises(DBAPIError, match="the ledger is append-only"), guarded.begin() as session:
        session.execute(text(statement))
    assert len(entries(guarded)) == 5
    assert broken(guarded) == []


def test_a_cut_tail_is_found_by_the_heads_kept_elsewhere(store: Store) -> None:
    with store.begin() as session:
        head = ledger.head(session, 1)
    kept = [Head(entry.hash, place, f"version {place}") for place, entry in enumerate(entries(store), start=1)]
    assert (head.hash, head.length) == (kept[-1].hash, 5)

    def found() -> list[str]:
        with store.begin() as session:
            return ledger.verify(session, 1, kept)

    assert found() == []
    with store.begin() as session:
        session.execute(delete(Entry).where(Entry.seq.in_([entry.seq for entry in entries(store)[3:]])))
    assert broken(store) == []  # what is left is whole
    assert found() == [
        "version 4 knows 4 entries, 3 are left: the end was cut off",
        "version 5 knows 5 entries, 3 are left: the end was cut off",
    ]
    with store.begin() as session:
        for number in range(3):
            ledger.append(session, 1, "created", {}, task_id=number)
    assert broken(store) == []
    assert [sentence.partition(" (")[0] for sentence in found()] == [
        "version 4 knows another entry in place 4",
        "version 5 knows another entry in place 5",
    ]
    with store.begin() as session:
        session.execute(delete(Entry).where(Entry.project_id == 1))
        assert ledger.head(session, 1) == Head(ledger.ROOT, 0)
        assert ledger.verify(session, 1, [Head(ledger.ROOT, 0, "the first version")]) == []
        assert len(ledger.verify(session, 1, kept)) == 5


def test_a_transaction_is_one_moment_later_than_all_before(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the clock stands still or is set back."""

    class Clock(datetime):
        at = datetime.now(UTC) + timedelta(days=1)

        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            cls.at -= timedelta(hours=1)
            return cls.at

    monkeypatch.setattr(ledger, "datetime", Clock)
    for _ in range(4):
        with store.begin() as session:
            for project in (1, 2, 1):
                ledger.append(session, project, "created", {})
    times = [entry.at for entry in entries(store)]
    assert times == sorted(times)
    last = times[5:]
    assert [last.count(moment) for moment in last] == [2] * 8
    assert len(set(last)) == 4
    assert len({len(moment) for moment in times}) == 1  # so that they compare as text


@pytest.mark.parametrize(
    ("origin", "flagged", "before", "after", "expected"),
    [
        ("person", False, {"bom": ["benign"]}, {"bom": ["benign"], "foci": []}, "confirmed"),
        ("person", False, {"foci": ["rim", "none"]}, {"foci": ["none", "rim"]}, "confirmed"),
        ("person", False, {"bom": ["benign"], "foci": []}, {"bom": ["malignant"], "foci": []}, "corrected"),
        ("person", False, {"foci": ["rim"]}, {"foci": []}, "corrected"),
        ("person", False, {}, {"bom": ["benign"]}, "labelled"),
        ("person", False, {"bom": ["benign"]}, {"foci": []}, "labelled"),
        ("person", True, {"bom": ["benign"]}, {"bom": ["malignant"]}, "flagged"),
        ("skipped", False, {"bom": ["benign"]}, {}, "skipped"),
        ("machine", False, {"bom": ["benign"]}, {"bom": ["malignant"]}, "machine"),
    ],
)
def test_actions_follow_from_the_labels(origin: str, flagged: bool, before: Any, after: Any, expected: str) -> None:
    assert ledger.action(origin, flagged, before, after) == expected


@pytest.mark.parametrize(
    ("tick", "answer", "expected"), [("confirm", "malignant", "corrected"), ("correct", "benign", "confirmed")]
)
def test_labels_win_over_a_review_tick_that_contradicts_them(tick: str, answer: str, expected: str) -> None:
    """A label config may ask what the labels say anyway."""
    schema = parse_label_config(
        """<View><Image name="image" value="$image"/>
        <Choices name="bom" toName="image"><Choice value="benign"/><Choice value="malignant"/></Choices>
        <Choices name="done" toName="image" model_role="review">
        <Choice value="confirm"/><Choice value="correct"/></Choices></View>"""
    )
    said = [
        {"from_name": name, "to_name": "image", "type": "choices", "value": {"choices": [choice]}}
        for name, choice in (("bom", answer), ("done", tick))
    ]
    decoded = decode_result(schema, said)
    assert (decoded.labels, decoded.flagged, decoded.problems) == ({"bom": (answer,)}, False, ())
    assert ledger.action("person", decoded.flagged, {"bom": ["benign"]}, decoded.labels) == expected


def test_the_ledger_knows_what_is_with_the_expert(guarded: Store) -> None:
    with guarded.begin() as session:
        for task in (1, 2, 3):
            referred.refer(session, 1, task)
        for task in (1, 2):
            referred.take_back(session, 1, task, "answered")
        referred.refer(session, 1, 1)
        referred.refer(session, 2, 4)
    with guarded.begin() as session:
        assert set(session.scalars(referred.with_expert(1))) == {1, 3}
        assert set(session.scalars(referred.with_expert(2))) == {4}
