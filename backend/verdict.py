"""Whether a version that was just trained takes over: it beside the model in force, on hold-out tasks of both."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from backend.drawings import dice_by_task
from backend.evaluation import gate, mask_gate
from backend.evaluation.gate import Verdict
from backend.learning.folds import HOLDOUT
from backend.marked import Marked
from backend.registry import Registry, load_json
from backend.scored import Scored, of_version
from backend.snapshot import Snapshot
from tasks import marks
from tasks.schema import Head, MaskHead, Schema
from tasks.store import Store
from tasks.tables import Project, Version


def reach(
    store: Store,
    registry: Registry,
    project_id: int,
    number: int,
    schema: Schema,
    taken: Snapshot,
    scored: Scored,
    level: float,
    marked: Marked | None = None,
) -> Verdict:
    """The verdict on version `number`, from its snapshot and scores alone: a resumed cycle reaches the same.

    The labels are those of the snapshot, which hold now, and what is `marked` then. The head is the heaviest that the
    model in force has learnt; where it is masks alone, the heaviest of those.
    """
    with store.begin() as session:
        project = session.get_one(Project, project_id)
        champion = session.get(Version, (project_id, project.version or 0))
    if champion is None:
        return gate.untested(number, "the first model: there is none to test it against")
    if project.probabilities is not None:
        return gate.untested(number, f"v{champion.number} was imported: a training that was asked for replaces it")
    if champion.schema != schema.fingerprint():
        return gate.untested(number, f"the label config has changed since v{champion.number}")
    said = _said(registry, project_id, champion.number, schema)
    if said is None:
        return gate.untested(number, f"what v{champion.number} said is no longer in the state folder")
    learnt: list[Head | MaskHead] = [head for head in schema.heads if head.name in said.probabilities]
    learnt = learnt or [head for head in schema.masks if head.name in said.drawn]
    if not learnt:
        return gate.untested(number, f"v{champion.number} had learnt nothing yet")
    head = max(learnt, key=lambda head: head.weight)
    if not _knows(scored, head):
        lacking = "labels" if isinstance(head, Head) else "marked images"
        reason = f"too few {lacking} of {head.name} are left to learn it from, and v{champion.number} has learnt it"
        return Verdict(False, "rule", f"{reason}: v{champion.number} stays in force", _best(champion), champion.number)
    before = {champion.number: said}
    best = _said(registry, project_id, _best(champion), schema)
    if best is not None and _knows(best, head):
        before.setdefault(_best(champion), best)
    held = taken.folds == HOLDOUT
    for other, what in before.items():
        held &= _unseen(registry.version(project_id, other), what, taken)
    rows = np.flatnonzero(held)
    if isinstance(head, MaskHead):
        assert marked is not None  # it was drawn in marked images
        folders = {other: registry.version(project_id, other) for other in (number, *before)}
        return _of_masks(registry, folders, schema, head, taken, marked, rows, level)
    return gate.judge(
        head,
        number,
        _of(scored, head, taken.ids[rows]),
        {other: _of(what, head, taken.ids[rows]) for other, what in before.items()},
        taken.targets[head.name][rows],
        taken.groups[rows].tolist(),
        taken.adjudicated[head.name][rows],
        level,
    )


def _of_masks(
    registry: Registry,
    folders: Mapping[int, Path],
    schema: Schema,
    head: MaskHead,
    taken: Snapshot,
    marked: Marked,
    rows: NDArray[np.intp],
    level: float,
) -> Verdict:
    """The verdict by what versions drew in these rows, as far as all of them did; folders: the challenger's first."""
    there = [row for row in rows.tolist() if marked.painted[row]]
    tasks = [(int(taken.ids[row]), str(taken.pixels[row]), str(marked.painted[row])) for row in there]
    found = {number: dice_by_task(registry, folder, schema, tasks) for number, folder in folders.items()}
    there = [row for row in there if all(int(taken.ids[row]) in said for said in found.values())]
    part = [plane == head.name for plane, _ in marks.planes(schema)]
    dice = {
        number: np.array([said[int(taken.ids[row])][part] for row in there]).reshape(len(there), sum(part))
        for number, said in found.items()
    }
    known = ~np.all([np.isnan(scores).all(axis=1) for scores in dice.values()], axis=0)
    kept = np.array(there, dtype=np.intp)[known]
    after, *others = dice
    return mask_gate.judge(
        head.name,
        after,
        dice[after][known],
        {other: dice[other][known] for other in others},
        taken.groups[kept].tolist(),
        marked.people[kept],
        level,
    )


def refused(store: Store, registry: Registry, project_id: int) -> set[int]:
    """The backbones on which only refused versions were built: the next one must not inherit their faults."""
    with store.begin() as session:
        versions = session.scalars(select(Version).where(Version.project_id == project_id)).all()
    built: dict[bool, set[int]] = {True: set(), False: set()}
    for version in versions:
        choice = registry.version(project_id, version.number) / "backbones.json"
        if choice.exists():
            built[(version.verdict or {}).get("takes_over", True)].add(load_json(choice)["number"])
    return built[False] - built[True]


def _best(champion: Version) -> int:
    """The version that the champion's own verdict calls the best so far."""
    return int((champion.verdict or {}).get("best", champion.number))


def _said(registry: Registry, project_id: int, number: int, schema: Schema) -> Scored | None:
    """What a version says under this label config; None where its folder is gone or it was not trained by us."""
    folder = registry.version(project_id, number)
    there = (folder / "predictions.npz").exists() and (folder / "snapshot.npz").exists()
    return of_version(folder).under(schema.learnt) if there else None


def _knows(said: Scored, head: Head | MaskHead) -> bool:
    return head.name in said.probabilities or head.name in said.drawn


def _unseen(folder: Path, said: Scored, taken: Snapshot) -> NDArray[np.bool_]:
    """bool (N,): tasks that a version scored by the image they have now, and never trained on, nor on their group.

    A task that was given to another patient may have left the folds for the hold-out.
    """
    still = said.still(dict(zip(taken.ids.tolist(), taken.pixels.tolist(), strict=True)))
    before = Snapshot.load(folder / "snapshot.npz")
    trained = before.folds != HOLDOUT
    unseen: NDArray[np.bool_] = np.isin(taken.ids, still)
    unseen &= ~np.isin(taken.ids, before.ids[trained]) & ~np.isin(taken.groups, before.groups[trained])
    return unseen


def _of(scored: Scored, head: Head, ids: NDArray[np.int64]) -> NDArray[np.float32]:
    return scored.probabilities[head.name][[scored.row_of[task] for task in ids.tolist()]]
