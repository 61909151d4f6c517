"""The audit trail: an append-only chain of label events, written by the worker alone.

Each entry's hash covers the hash before it, so an entry that is altered, removed or moved breaks the chain.
"""

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from tasks.tables import Entry, Project

ROOT = "0" * 64


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
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


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
    """Add one event to the project's chain, in the session's transaction."""
    # Writing to the project's row first makes every other writer of this chain wait for our commit.
    session.execute(update(Project).where(Project.id == project_id).values(id=project_id))
    last = session.scalars(
        select(Entry.hash).where(Entry.project_id == project_id).order_by(Entry.seq.desc()).limit(1)
    ).first()
    entry = Entry(
        project_id=project_id,
        at=datetime.now(UTC).isoformat(),
        event=event,
        task_id=task_id,
        annotation_id=annotation_id,
        actor=actor,
        body=json.loads(json.dumps(body)),  # as it will be read back: tuples become lists before they are hashed
        previous=last or ROOT,
    )
    entry.hash = digest(entry)
    session.add(entry)
    session.flush()
    return entry


def verify(session: Session, project_id: int) -> list[str]:
    """A sentence for each break of the project's chain; none when it is whole."""
    breaks, previous = [], ROOT
    for entry in session.scalars(select(Entry).where(Entry.project_id == project_id).order_by(Entry.seq)):
        if entry.previous != previous:
            breaks.append(f"entry {entry.seq}: an entry before it was removed or moved")
        if digest(entry) != entry.hash:
            breaks.append(f"entry {entry.seq}: altered since it was written")
        previous = entry.hash
    return breaks
