import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select, update

from tasks import ledger
from tasks.store import Store
from tasks.tables import Annotation, Entry


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.open(f"sqlite:///{tmp_path / 'store.db'}")
    for project in (1, 2):
        store.register_project(project, "<View/>")
    with store.begin() as session:
        for number in range(5):
            body = {"from": {}, "to": {"bom": ("malignant",)}, "lead_time": number / 3, "note": "é"}
            ledger.append(session, 1, "created", body, task_id=number, annotation_id=number, actor=7)
            ledger.append(session, 2, "trained", {"version": number})
    return store


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


def test_appends_at_the_same_time_make_one_chain(store: Store) -> None:
    """Each in a transaction of its own, which has read before it writes, as reconcile and cycle do."""
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
