"""The audit trail: an append-only chain of label events, written by the worker alone.

Each entry's hash covers the hash before it, so an entry that is altered, removed or moved breaks the chain. A tail that
was cut off leaves a whole chain behind: it shows by the heads that are kept elsewhere, in model versions and reports.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from tasks.store import lock_project
from tasks.tables import Entry

ROOT = "0" * 64
BLOCK = 500  # entries read at a time


@dataclass(frozen=True)
class Head:
    """A chain's last hash (hex) and its number of entries, and where that was kept."""

    hash: str
    length: int
    where: str = ""


def canonical(value: Any) -> str:
    """JSON in one form: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def digest(entry: Entry) -> str:
    """SHA-256 (hex) over the previous hash and the entry's canonical JSON."""
    content = [
        entry.previous,
        entry.project_id,
        entry.at,
        entry.event,
        entry.task_id,
        entry.annotation_id,
        entry.actor,
        entry.body,
    ]
    return hashlib.sha256(canonical(content).encode()).hexdigest()


def append(
    session: Session,
    project_id: int,
    event: str,
    body: dict[str, Any],
    *,
    task_id: int | None = None,
    annotation_id: int | None = None,
    actor: int | None = None,
) -> Entry:
    """Add one event to the project's chain, in the session's transaction.

    All entries of a transaction bear one time, later than any before it, whatever the clock does: the entries up to a
    time are always what some transactions wrote, whole.
    """
    end = _end(session, project_id)
    entry = Entry(
        project_id=project_id,
        at=end.at,
        event=event,
        task_id=task_id,
        annotation_id=annotation_id,
        actor=actor,
        body=json.loads(json.dumps(body)),  # as it will be read back: tuples become lists before they are hashed
        previous=end.hash,
    )
    end.hash = entry.hash = digest(entry)
    session.add(entry)
    return entry


@dataclass
class _End:
    """Where a transaction's next entry goes."""

    hash: str
    at: str


def _end(session: Session, project_id: int) -> _End:
    """The chain's end: read once a transaction, since nobody else writes to the chain until it is over."""
    transaction = session.get_transaction() or session.begin()
    scope = (transaction, session.get_nested_transaction())  # a savepoint rolled back takes entries with it
    if session.info.get("ledger", (None, {}))[0] != scope:
        session.info["ledger"] = (scope, {})
    ends: dict[int, _End] = session.info["ledger"][1]
    if project_id not in ends:
        lock_project(session, project_id)  # every other writer of this chain waits for our commit
        last = session.execute(
            select(Entry.hash, Entry.at).where(Entry.project_id == project_id).order_by(Entry.seq.desc()).limit(1)
        ).first()
        ends[project_id] = _End(last.hash if last else ROOT, _after(last.at if last else None))
    return ends[project_id]


def _after(last: str | None) -> str:
    now = datetime.now(UTC)
    if last is not None:
        now = max(now, datetime.fromisoformat(last) + timedelta(microseconds=1))
    return now.isoformat(timespec="microseconds")


def chain(session: Session, project_id: int) -> Iterator[Entry]:
    """The project's entries, first first, some at a time."""
    query = select(Entry).where(Entry.project_id == project_id).order_by(Entry.seq)
    yield from session.scalars(query.execution_options(yield_per=BLOCK))


def head(session: Session, project_id: int) -> Head:
    """The chain's present end, to be kept elsewhere."""
    last = select(Entry.hash).where(Entry.project_id == project_id).order_by(Entry.seq.desc()).limit(1)
    length = session.scalar(select(func.count()).select_from(Entry).where(Entry.project_id == project_id))
    return Head(session.scalar(last) or ROOT, length or 0)


def breaks(entries: Iterable[Entry], kept: Iterable[Head] = ()) -> list[str]:
    """A sentence for each break of a chain; none when it is whole and every kept head lies on it."""
    found, previous, length = [], ROOT, 0
    expected: dict[int, list[Head]] = {}
    for known in kept:
        expected.setdefault(known.length, []).append(known)
    for length, entry in enumerate(entries, start=1):
        if entry.previous != previous:
            found.append(f"entry {entry.seq}: an entry before it was removed or moved")
        if digest(entry) != entry.hash:
            found.append(f"entry {entry.seq}: altered since it was written")
        previous = entry.hash
        for known in expected.pop(length, []):
            if known.hash != entry.hash:
                found.append(
                    f"{known.where} knows another entry in place {length} (entry {entry.seq}):"
                    " the chain up to there was replaced"
                )
    for known in (known for heads in expected.values() for known in heads):
        if known.length:
            found.append(f"{known.where} knows {known.length} entries, {length} are left: the end was cut off")
    return found


def verify(session: Session, project_id: int, kept: Iterable[Head] = ()) -> list[str]:
    """A sentence for each break of the project's chain, as `breaks`."""
    return breaks(chain(session, project_id), kept)


def action(
    origin: str,
    flagged: bool,
    before: Mapping[str, Sequence[str]],
    after: Mapping[str, Sequence[str]],
    masks: str | None = None,
) -> str:
    """What an annotation does to its task, by its labels, the labels that held before, and its masks.

    masks: as `marks.verdict`. earlier, imported, machine, empty and skipped (annotations of that origin); flagged;
    labelled (nothing was known of what it answers), confirmed (it says the same of all that was known) or corrected.
    """
    if origin != "person":
        return origin
    if flagged:
        return "flagged"
    found = {masks}
    both = before.keys() & after.keys()
    if both:
        found.add("confirmed" if all(set(before[name]) == set(after[name]) for name in both) else "corrected")
    return next((word for word in ("corrected", "confirmed") if word in found), "labelled")
