"""What people did: reviews by day, wrong labels found on the way, labels changed, suspects checked."""

from collections import Counter
from typing import Any

import numpy as np

from backend.report.material import Material, moment
from tasks.ranking.suspects import suspects

RANDOM = ("control", "blind")


def by_day(material: Material) -> list[dict[str, Any]]:
    """How many answers people submitted on each day (UTC) that saw any."""
    days = Counter(moment(row.created_at).date().isoformat() for row in material.annotations if row.origin == "person")
    return [{"day": day, "reviews": count} for day, count in sorted(days.items())]


def found(material: Material) -> dict[str, list[int]]:
    """Wrong labels of the heaviest head found, after each review: by the ranking ("ranked") and at random ("random").

    As `evidence`, reviews of tasks that came through the queue and carried a label on record, in order of time.
    """
    head, items = material.head, {item.id: item for item in material.items}
    counted: set[int] = set()
    totals: dict[str, list[int]] = {"ranked": [], "random": []}
    if head is None:
        return totals
    for row in material.annotations:
        shown = material.shown.get(row.parent_prediction or 0)
        item = items.get(row.task_id)
        if row.origin != "person" or shown is None or item is None or row.task_id in counted:
            continue
        counted.add(row.task_id)
        arm = "random" if shown.kind in RANDOM else shown.kind
        if arm in totals and head.name in item.settled.adjudicated and head.name in item.settled.current:
            before = totals[arm][-1] if totals[arm] else 0
            totals[arm].append(before + item.corrected(head))
    return totals


def changes(material: Material) -> dict[str, Any]:
    """Labels on record that people checked and changed, per head; and from what to what for the heaviest."""
    heads = []
    for head in material.schema.heads:
        checked = [
            item
            for item in material.items
            if head.name in item.settled.adjudicated and head.name in item.settled.current
        ]
        changed = sum(item.corrected(head) for item in checked)
        heads.append({"control": head.name, "checked": len(checked), "corrected": changed})
    main = material.head
    moves = Counter(
        (_spoken(item.settled.current[main.name]), _spoken(item.settled.labels[main.name]))
        for item in material.items
        if main is not None and item.corrected(main)
    )
    table = [{"from": a, "to": b, "count": count} for (a, b), count in sorted(moves.items(), key=lambda m: (-m[1], m))]
    return {"heads": heads, "moves": table}


def doubted(material: Material, threshold: float) -> dict[str, Any] | None:
    """Suspects of the heaviest head by the document's rule, as the model in force sees them; None without a model.

    tasks: with a label on record that were scored. suspects: of them, the label's probability is below `threshold` and
    the prediction differs. reviewed: suspects that a person checked. corrected: and changed.
    """
    head = material.head
    scored = None if material.project.version is None else material.scored(material.project.version)
    if head is None or scored is None or head.name not in scored.probabilities:
        return None
    there = [item for item in material.items if item.id in scored.row_of]
    p = scored.probabilities[head.name][[scored.row_of[item.id] for item in there]]
    recorded = material.targets(head, [item.settled.current for item in there])
    doubt = suspects(p, recorded, head, threshold)
    doubtful = [there[row] for row in np.flatnonzero(doubt).tolist()]
    checked = [item for item in doubtful if head.name in item.settled.adjudicated]
    return {
        "threshold": threshold,
        "tasks": int((~np.isnan(recorded).any(axis=1)).sum()),
        "suspects": len(doubtful),
        "reviewed": len(checked),
        "corrected": sum(item.corrected(head) for item in checked),
    }


def _spoken(labels: tuple[str, ...]) -> str:
    return ", ".join(labels) or "nothing ticked"
