"""Who worked: what each did, in what time, beyond the daily limit, and how far several of one task agree."""

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from backend.evaluation.consensus import consensus
from backend.report.material import Material, moment
from tasks.ledger import action
from tasks.schema import Head, Labels
from tasks.tables import Annotation

SPLIT = 10  # tasks named on which people disagree


def annotators(material: Material, limit: int) -> list[dict[str, Any]]:
    """Per annotator, by Label Studio's number: tasks answered, how, in what median time, and how many skipped.

    tired: answers beyond the daily `limit` (0: none), and before and beyond it those of the heaviest head that could
    differ from the record and how many did; None without a limit.
    """
    current = {item.id: item.settled.current for item in material.items}
    rows: dict[int | None, list[Annotation]] = {}
    for row in material.annotations:
        if row.origin in ("person", "skipped"):
            rows.setdefault(row.completed_by, []).append(row)
    table = []
    for who, own in rows.items():
        answers = [row for row in own if row.origin == "person"]
        latest = {row.task_id: row for row in answers}
        acts = Counter(_act(material, row, current.get(task, {})) for task, row in latest.items())
        times = [row.lead_time for row in latest.values() if row.lead_time is not None]
        table.append(
            {
                "annotator": who,
                "reviews": len(latest),
                "confirmed": acts["confirmed"],
                "corrected": acts["corrected"],
                "labelled": acts["labelled"],
                "flagged": acts["flagged"],
                "skipped": len(own) - len(answers),
                "median_seconds": median(times) if times else None,
                "tired": _tired(answers, current, material.head, limit) if limit else None,
            }
        )
    return sorted(table, key=lambda row: (-row["reviews"], row["annotator"] is None, row["annotator"] or 0))


def agreement(material: Material) -> dict[str, Any]:
    """Consensus of several annotators on the heaviest head.

    said: why nothing can be told, or None. tasks: answered by two or more. agreement: the mean share of the commonest
    answer. annotators: shared tasks, agreement with the others, and quality as CROWDLAB estimates it beside the newest
    model. split: up to SPLIT tasks whose consensus is least likely to be right, with what each annotator said.
    """
    head = material.head
    if head is None:
        return _silent("Agreement is told of labels, not of masks.")
    said = _said(material, head)
    people = sorted({who for row in said.values() for who in row})
    reason = _nothing(material, head, said, people)
    if reason is not None:
        return _silent(reason)
    scored = material.scored(material.project.version or 0)
    assert scored is not None  # else there is a reason
    tasks = [task for task in said if task in scored.row_of]
    place = {who: column for column, who in enumerate(people)}
    answers = np.full((len(tasks), len(people)), np.nan)
    for row, task in enumerate(tasks):
        for who, label in said[task].items():
            answers[row, place[who]] = head.classes.index(label)
    found = consensus(answers, scored.probabilities[head.name][[scored.row_of[task] for task in tasks]])
    if found is None:
        return _silent(ALONE)
    several = np.flatnonzero(~np.isnan(found.quality))
    doubtful = several[np.argsort(found.quality[several], kind="stable")]
    split = [row for row in doubtful.tolist() if found.agreement[row] < 1][:SPLIT]
    return {
        "said": None,
        "tasks": len(several),
        "agreement": float(found.agreement[several].mean()),
        "annotators": [
            {
                "annotator": who,
                "shared": int(found.shared[column]),
                "agrees": float(found.agrees[column]),
                "quality": float(found.trust[column]) if np.isfinite(found.trust[column]) else None,
            }
            for column, who in enumerate(people)
            if found.shared[column]
        ],
        "split": [
            {
                "task": tasks[row],
                "quality": float(found.quality[row]),
                "answers": [{"annotator": who, "label": label} for who, label in sorted(said[tasks[row]].items())],
            }
            for row in split
        ],
    }


ALONE = "No task was answered by two annotators: agreement cannot be told."


def _silent(reason: str) -> dict[str, Any]:
    return {"said": reason, "tasks": 0, "agreement": None, "annotators": [], "split": []}


def _act(material: Material, row: Annotation, current: Labels) -> str:
    """What an answer did to its task: of masks the ledger knows it, which compared them when they came."""
    known = material.actions.get(row.id)
    return known if known is not None else action("person", row.flagged, current, row.labels)


def _nothing(
    material: Material, head: Head, said: Mapping[int, Mapping[int, str]], people: Sequence[int]
) -> str | None:
    """Why agreement cannot be told; None where it can."""
    if head.multiple:
        return f"{head.name} takes several answers: agreement is told of controls with one."
    if not people:
        return "Nobody has answered yet: agreement cannot be told."
    if len(people) == 1:
        return f"One annotator, user {people[0]}: agreement cannot be told."
    if all(len(row) == 1 for row in said.values()):
        return ALONE
    scored = None if material.project.version is None else material.scored(material.project.version)
    if scored is None or head.name not in scored.probabilities:
        return f"No model has learnt {head.name} yet, beside which the annotators could be weighed."
    return None


def _said(material: Material, head: Head) -> dict[int, dict[int, str]]:
    """Per task that is there, each annotator's latest answer; one that asks for an expert is none."""
    there, found = {item.id for item in material.items}, dict[int, dict[int, str]]()
    for row in sorted(material.annotations, key=lambda row: (row.updated_at, row.id)):
        if row.origin != "person" or row.completed_by is None or row.task_id not in there:
            continue
        own = found.setdefault(row.task_id, {})
        own.pop(row.completed_by, None)
        label = row.labels.get(head.name, ())
        if not row.flagged and len(label) == 1 and label[0] in head.classes:
            own[row.completed_by] = label[0]
    return {task: own for task, own in found.items() if own}


def _tired(answers: Sequence[Annotation], current: Mapping[int, Any], head: Head | None, limit: int) -> dict[str, int]:
    """Of one annotator, in order of time: answers beyond the limit of a day (UTC), and what was corrected."""
    days: Counter[str] = Counter()
    counts = dict.fromkeys(("beyond", "checked_within", "corrected_within", "checked_beyond", "corrected_beyond"), 0)
    for row in answers:
        day = moment(row.created_at).date().isoformat()
        days[day] += 1
        part = "beyond" if days[day] > limit else "within"
        counts["beyond"] += part == "beyond"
        name = "" if head is None else head.name
        record, said = current.get(row.task_id, {}).get(name), row.labels.get(name)
        if record is not None and said is not None:
            counts[f"checked_{part}"] += 1
            counts[f"corrected_{part}"] += set(record) != set(said)
    return counts
