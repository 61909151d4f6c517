"""The ledger's heads that lie outside the database: each model version keeps the one it was trained at."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from backend.registry import Registry, load_json
from tasks.ledger import Head
from tasks.tables import Entry


def as_json(head: Head) -> dict[str, Any]:
    """How a version or a report keeps a head."""
    return {"hash": head.hash, "length": head.length}


def file_digest(path: Path) -> str:
    """sha256 (hex) of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def kept(registry: Registry, project_id: int) -> list[Head]:
    """The heads that the project's model versions keep."""
    found = []
    for path in sorted(registry.version(project_id, 0).parent.glob("*/model.json")):
        head = load_json(path).get("ledger")
        if head is not None:
            found.append(Head(head["hash"], head["length"], f"model version {path.parent.name}"))
    return found


def altered(registry: Registry, project_id: int, models: Iterable[Entry]) -> list[str]:
    """A sentence for each model version whose model.json is not the one that its entry in the ledger names.

    A folder that was deleted is no break: old versions may go.
    """
    found = []
    for entry in models:
        path = registry.version(project_id, entry.body["version"]) / "model.json"
        expected = entry.body.get("model")
        if expected is not None and path.exists() and file_digest(path) != expected:
            found.append(f"model version {entry.body['version']}: {path} was altered since entry {entry.seq} named it")
    return found
