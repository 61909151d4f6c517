"""Which label of a task holds: what people adjudicated over what was on record, control by control."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from tasks.schema import Labels
from tasks.tables import Annotation


@dataclass(frozen=True)
class Settled:
    """The labels to train on, the labels on record to be checked, and which heads people decided."""

    labels: Labels = field(default_factory=dict)
    current: Labels = field(default_factory=dict)
    adjudicated: frozenset[str] = frozenset()
    flagged: bool = False


def settle(annotations: Iterable[Annotation], current: Labels) -> Settled:
    """Settle one task.

    Each annotator's latest word counts once; for each head the majority of the annotators holds, and of equally
    common answers the latest. Imported annotations, and those that people made before the project was connected,
    replace `current`. Deleted, skipped, empty and machine-made ones say nothing. A task that somebody flagged for an
    expert trains nothing until it is settled: by whoever answers it after the flag and outside the queue, in which it
    has no place, whose word then holds alone; or by the flag being taken away.
    """
    present = sorted((row for row in annotations if row.deleted_at is None), key=_time)
    record = {head: tuple(names) for head, names in current.items()}
    for row in present:
        if row.origin in ("imported", "earlier"):
            record |= {head: tuple(names) for head, names in row.labels.items()}
    latest = {row.completed_by: row for row in present if row.origin == "person"}
    people = sorted(latest.values(), key=_time)
    flagged = [row for row in people if row.flagged]
    if flagged:
        people = [row for row in people if _time(row) > _time(flagged[-1]) and row.parent_prediction is None]
        if not people:
            return Settled({}, record, frozenset(), flagged=True)
    decided: Labels = {}
    for head in {head for row in people for head in row.labels}:
        answers = [tuple(row.labels[head]) for row in people if head in row.labels]
        votes = Counter(answers)
        decided[head] = max(answers, key=lambda answer: (votes[answer], len(answers) - answers[::-1].index(answer)))
    return Settled(record | decided, record, frozenset(decided))


def by_task(annotations: Iterable[Annotation]) -> dict[int, list[Annotation]]:
    """The annotations of each task that has any, in the order in which they come."""
    found: dict[int, list[Annotation]] = {}
    for annotation in annotations:
        found.setdefault(annotation.task_id, []).append(annotation)
    return found


def _time(annotation: Annotation) -> tuple[str, int]:
    """When it was last changed; of two at one time the later number, so that rows in any order settle alike."""
    return annotation.updated_at, annotation.id
