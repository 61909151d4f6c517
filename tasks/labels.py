"""Which label of a task holds: what people adjudicated over what was on record, control by control."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tasks.schema import Labels
from tasks.tables import Annotation

LEAST = 0.2
"""What the answer of an annotator who is not sure at all counts, beside 1 for one who is, or was not asked."""


@dataclass(frozen=True)
class Settled:
    """The labels to train on, the labels on record to be checked, and which heads people decided.

    weights: per head that people decided, how far they stand behind the answer that holds, in [LEAST, 1] for one
    annotator: the votes for it over the number of annotators, so that doubt and dissent lower it alike.
    """

    labels: Labels = field(default_factory=dict)
    current: Labels = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    flagged: bool = False

    @property
    def adjudicated(self) -> frozenset[str]:
        """The heads that people decided."""
        return frozenset(self.weights)


@dataclass(frozen=True)
class Standing:
    """The annotations of a task that count, oldest first.

    record: imported ones, and those that people made before the project was connected: what is to be checked. people:
    each annotator's latest word. flagged: the task waits for an expert; then people is empty, and nothing is learnt.
    """

    record: Sequence[Annotation] = ()
    people: Sequence[Annotation] = ()
    flagged: bool = False


def standing(annotations: Iterable[Annotation]) -> Standing:
    """Which annotations of one task count.

    Deleted, skipped, empty and machine-made ones say nothing. A task that somebody flagged for an expert trains nothing
    until it is settled: by whoever answers it after the flag and outside the queue, in which it has no place, whose
    word then holds alone; or by the flag being taken away.
    """
    present = sorted((row for row in annotations if row.deleted_at is None), key=_time)
    record = [row for row in present if row.origin in ("imported", "earlier")]
    latest = {row.completed_by: row for row in present if row.origin == "person"}
    people = sorted(latest.values(), key=_time)
    flagged = [row for row in people if row.flagged]
    if flagged:
        people = [row for row in people if _time(row) > _time(flagged[-1]) and row.parent_prediction is None]
    return Standing(record, people, flagged=bool(flagged) and not people)


def settle(annotations: Iterable[Annotation], current: Labels) -> Settled:
    """Settle one task by the annotations that count (`standing`).

    Each annotator's latest word counts once, by their own confidence (from LEAST to 1; 1 where they were not asked);
    for each head the answer with the most votes holds, and of equal ones the latest. The annotations on record replace
    `current`. A task that waits for an expert has no labels.
    """
    found = standing(annotations)
    record = {head: tuple(names) for head, names in current.items()}
    for row in found.record:
        record |= {head: tuple(names) for head, names in row.labels.items()}
    if found.flagged:
        return Settled({}, record, flagged=True)
    decided: Labels = {}
    weights: dict[str, float] = {}
    for head in sorted({head for row in found.people for head in row.labels}):
        votes: dict[tuple[str, ...], float] = {}  # the latest answer last
        for row in found.people:
            if head in row.labels:
                answer = tuple(row.labels[head])
                votes[answer] = votes.pop(answer, 0.0) + _vote(row)
        most = max(round(vote, 6) for vote in votes.values())
        decided[head] = next(answer for answer, vote in reversed(votes.items()) if round(vote, 6) == most)
        weights[head] = round(votes[decided[head]] / sum(head in row.labels for row in found.people), 6)
    return Settled(record | decided, record, weights)


def by_task(annotations: Iterable[Annotation]) -> dict[int, list[Annotation]]:
    """The annotations of each task that has any, in the order in which they come."""
    found: dict[int, list[Annotation]] = {}
    for annotation in annotations:
        found.setdefault(annotation.task_id, []).append(annotation)
    return found


def _vote(annotation: Annotation) -> float:
    return 1.0 if annotation.confidence is None else LEAST + (1 - LEAST) * annotation.confidence


def _time(annotation: Annotation) -> tuple[str, int]:
    """When it was last changed; of two at one time the later number, so that rows in any order settle alike."""
    return annotation.updated_at, annotation.id
