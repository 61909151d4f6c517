"""What the models are worth: history, learning curve, first against the one in force, and how far confidence holds."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from backend.evaluation.compare import compare
from backend.evaluation.gate import GROUPS
from backend.evaluation.metrics import BINS, FIGURES, evaluate
from backend.report.material import Floats, Item, Material, moment
from backend.scored import Scored
from tasks.schema import Head
from tasks.tables import Version

DRAWS = 500  # resamples: a page is to be there in seconds
CENTRES = 30  # shown, the largest first


def history(material: Material) -> list[dict[str, Any]]:
    """The versions, with the figures that each kept when it was made, and the verdict on each.

    n, adjudicated: of the heaviest head, without any of the heaviest mask head, as the figures. dice: per mask head.
    """
    reviews, main = first_reviews(material), material.head
    counted = main or max(material.schema.masks, key=lambda head: head.weight)
    table = []
    for version in material.versions:
        kept = version.metrics.get(counted.name, {})
        figures: dict[str, Any] = {name: kept.get(name) for name in ("n", "adjudicated", *FIGURES)}
        figures["dice"] = {head.name: version.metrics.get(head.name, {}).get("dice") for head in material.schema.masks}
        table.append(
            {
                "version": version.number,
                "at": datetime.fromtimestamp(version.created_at, UTC).isoformat(timespec="minutes"),
                "labels": version.labels,
                "reviewed": reviewed_before(reviews, made(material, version)),
                "in_force": version.number == material.project.version,
                "takes_over": (version.verdict or {}).get("takes_over"),
                "reason": (version.verdict or {}).get("reason"),
            }
            | figures
        )
    return table


def curve(material: Material) -> list[dict[str, Any]]:
    """Per version that still says something: tasks reviewed before it, and its AUC and macro F1 of the heaviest head.

    Against the labels that hold now, on hold-out tasks that all of these versions scored, so that the points compare.
    """
    head, reviews = material.head, first_reviews(material)
    if head is None:
        return []
    said: dict[int, dict[int, Floats]] = {}  # of each version its hold-out alone is kept: versions may be many
    versions = [version for version in material.versions if made(material, version) is version]
    for version in versions:
        scored = material.scored(version.number)
        if scored is not None and head.name in scored.probabilities:
            there = seen_by(material.holdout, [scored])
            p = _rows(scored, head, there)
            said[version.number] = {item.id: row for item, row in zip(there, p, strict=True)}
    common = [item for item in material.holdout if all(item.id in rows for rows in said.values())] if said else []
    items, targets = _labelled(material, head, common)
    if not items:
        return []
    points = []
    for version in versions:
        if version.number in said:
            figures = evaluate(head, np.stack([said[version.number][item.id] for item in items]), targets)
            reviewed = reviewed_before(reviews, version)
            names = ("n", "auc", "macro_f1")
            points.append({"version": version.number, "reviewed": reviewed} | {name: figures[name] for name in names})
    return points


def before_and_after(material: Material) -> dict[str, Any] | None:
    """First version against the one in force on hold-out tasks that both scored; None before there are two that say
    something.

    Against the labels that hold now. heads: per head the paired differences (`compare`), over whole groups; centres:
    the same of the heaviest head, largest first. adjudicated: of the labels, how many a person gave. Intervals are
    None below GROUPS groups.
    """
    main = material.head
    ends = None if main is None else _ends(material, main)
    if main is None or ends is None:
        return None
    (first, before), (in_force, after) = ends
    items = seen_by(material.holdout, [before, after])
    if not items:
        return None
    heads = [
        head for head in material.schema.heads if head.name in before.probabilities and head.name in after.probabilities
    ]
    sites: dict[str, list[Item]] = {}
    for item in items:
        if item.site is not None:
            sites.setdefault(item.site, []).append(item)
    largest = sorted(sites.items(), key=lambda site: (-len(site[1]), site[0]))
    centres = largest[:CENTRES]
    return {
        "first": first,
        "in_force": in_force,
        "tasks": len(items),
        "holdout": len(material.holdout),
        "draws": DRAWS,
        "groups_needed": GROUPS,
        "heads": [compared(material, head, before, after, items) | {"control": head.name} for head in heads],
        "centres": [compared(material, main, before, after, there) | {"centre": site} for site, there in centres],
        "centres_left_out": len(largest) - len(centres),
    }


def reliability(material: Material) -> dict[str, Any] | None:
    """How often the model in force is right at each confidence (heaviest head, hold-out, labels that hold now).

    bins: those of the BINS equally wide bins that hold an answer: from, to, answers, their mean confidence, the share
    that is right. None without a model or without hold-out labels.
    """
    head, number = material.head, material.project.version
    scored = None if number is None else material.scored(number)
    if head is None or scored is None or head.name not in scored.probabilities:
        return None
    items, y = _labelled(material, head, seen_by(material.holdout, [scored]))
    if not items:
        return None
    p = _rows(scored, head, items).astype(np.float64)
    if head.multiple:
        confidence, right = np.maximum(p, 1 - p).ravel(), ((p >= 0.5) == (y > 0)).ravel()
    else:
        confidence, right = p.max(axis=1), p.argmax(axis=1) == y.argmax(axis=1)
    place = np.clip((confidence * BINS).astype(int), 0, BINS - 1)
    bins = [
        {
            "from": b / BINS,
            "to": (b + 1) / BINS,
            "answers": int((place == b).sum()),
            "confidence": float(confidence[place == b].mean()),
            "right": float(right[place == b].mean()),
        }
        for b in np.unique(place).tolist()
    ]
    figures = {
        "n": len(items),
        "adjudicated": _by_people(head, items),
        "ece": evaluate(head, p.astype(np.float32), y)["ece"],
    }
    return {"version": number, "bins": bins} | figures


def first_reviews(material: Material) -> list[float]:
    """When each task that people answered was answered first, in seconds since the epoch, in order."""
    first: dict[int, float] = {}
    for row in material.annotations:
        if row.origin == "person":
            first.setdefault(row.task_id, moment(row.created_at).timestamp())
    return sorted(first.values())


def reviewed_before(reviews: Sequence[float], version: Version) -> int:
    """How many of them were there when a version's training began."""
    return int(np.searchsorted(np.asarray(reviews), version.created_at - version.seconds, side="right"))


def made(material: Material, version: Version) -> Version:
    """The version that was trained, where an admin put an earlier one in force again under a new number."""
    of = (version.verdict or {}).get("of", version.number)
    return next((other for other in material.versions if other.number == of), version)


def _ends(material: Material, head: Head) -> tuple[tuple[int, Scored], tuple[int, Scored]] | None:
    """The first version that says something of a head, and the one in force, if these are two."""

    def end(versions: Iterable[Version]) -> tuple[int, Scored] | None:
        for version in versions:
            scored = material.scored(version.number)
            if scored is not None and head.name in scored.probabilities:
                return version.number, scored
        return None

    first = end(material.versions)
    in_force = end(version for version in material.versions if version.number == material.project.version)
    return None if first is None or in_force is None or first[0] == in_force[0] else (first, in_force)


def seen_by(items: Sequence[Item], versions: Sequence[Scored]) -> list[Item]:
    """The tasks that all versions scored by the image that they have now; imported probabilities name no image."""

    def seen(item: Item, scored: Scored) -> bool:
        row = scored.row_of.get(item.id)
        return row is not None and str(scored.pixels[row]) in ("", item.pixels)

    return [item for item in items if all(seen(item, scored) for scored in versions)] if versions else []


def _rows(scored: Scored, head: Head, items: Sequence[Item]) -> Floats:
    return scored.probabilities[head.name][[scored.row_of[item.id] for item in items]]


def _labelled(material: Material, head: Head, items: Sequence[Item]) -> tuple[list[Item], Floats]:
    """Those of the tasks that carry a label of the head now, and the labels (N, C)."""
    targets = material.targets(head, [item.settled.labels for item in items])
    rows = np.flatnonzero(~np.isnan(targets).any(axis=1)).tolist()
    return [items[row] for row in rows], targets[rows]


def _by_people(head: Head, items: Sequence[Item]) -> int:
    return sum(head.name in item.settled.adjudicated for item in items)


def compared(material: Material, head: Head, before: Scored, after: Scored, items: Sequence[Item]) -> dict[str, Any]:
    """One head before and after on these tasks: n labels, of which adjudicated by people, and figures (`compare`).

    Intervals are None below GROUPS groups.
    """
    there, targets = _labelled(material, head, items)
    groups = [item.group or f"task {item.id}" for item in there]
    found = compare(head, _rows(before, head, there), _rows(after, head, there), targets, groups, draws=DRAWS)
    if len(set(groups)) < GROUPS:
        found = {name: replace(row, low=None, high=None, p_worse=None) for name, row in found.items()}
    figures = {name: asdict(difference) for name, difference in found.items()}
    return {"n": len(there), "adjudicated": _by_people(head, there), "figures": figures}
