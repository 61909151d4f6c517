"""A version from probabilities that were made elsewhere: scored and published like one of ours, without training.

It has no backbone, so distances are unknown: diversity counts nothing in its order, new tasks are not ranked by it, and
no reviewed task is named as most like. Its project is not trained unasked; a training that was asked for replaces it.
"""

from dataclasses import asdict
from pathlib import Path

import numpy as np
from sqlalchemy import select

from backend import centres, kept_heads, members
from backend.evaluation import gate
from backend.evaluation.metrics import evaluate
from backend.learning.folds import HOLDOUT
from backend.probabilities import KEYS, BadProbabilities, Probabilities
from backend.registry import Registry, load_json, save_json
from backend.scored import Scored, score
from backend.snapshot import Snapshot, take
from backend.work import Work
from tasks import ledger
from tasks.schema import Schema, parse_label_config
from tasks.store import Store, lock_project
from tasks.tables import Project, Task, Version

KIND = "probabilities"  # of the job


def names(store: Store, project_id: int) -> dict[str, dict[str, list[int]]]:
    """For each way to name a task (KEYS), the tasks that a value stands for."""
    found: dict[str, dict[str, list[int]]] = {key: {} for key in KEYS}
    with store.begin() as session:
        query = select(Task.id, Task.image, Task.data).where(Task.project_id == project_id, Task.deleted_at.is_(None))
        for task, image, data in session.execute(query):
            for key, value in (("task", task), ("image", image), ("file", data.get("file"))):
                if value not in (None, ""):
                    found[key].setdefault(str(value), []).append(task)
    return found


def check_measure(measure: str, probabilities: Probabilities) -> None:
    """Raise BadProbabilities where the measure of uncertainty needs a spread that the file has not."""
    _, blocks = probabilities.blocks()
    alone = sum(len(rows) for rows, members in blocks if len(next(iter(members.values()))) == 1)
    if alone and measure in ("bald", "variance"):
        raise BadProbabilities(
            [f"the measure {measure!r} needs several members a task, told apart by a column 'member': {alone} have one"]
        )


def stage(registry: Registry, project_id: int, probabilities: Probabilities) -> None:
    """Leave checked probabilities where the project's next job of this kind finds them."""
    probabilities.save(_staged(registry, project_id))


def in_force(store: Store, registry: Registry, project_id: int, sha256: str) -> int | None:
    """The version that orders the project's queue, if it was made from this very file under the present controls."""
    project = store.project(project_id)
    if project is None or project.probabilities is None or project.version is None:
        return None
    folder = registry.version(project_id, project.version)
    same = Probabilities.load(folder / "imported.npz").sha256 == sha256
    fingerprint = parse_label_config(project.label_config).fingerprint()
    return project.version if same and load_json(folder / "model.json")["schema"] == fingerprint else None


def _staged(registry: Registry, project_id: int) -> Path:
    return registry.version(project_id, 0).parents[1] / "probabilities.npz"


def alarms(store: Store, project_id: int) -> list[str]:
    """What an admin should know of an imported order."""
    with store.begin() as session:
        project = session.get_one(Project, project_id)
        if project.probabilities is None or project.version is None:
            return []
        made_for = session.get_one(Version, (project_id, project.version)).schema
    if parse_label_config(project.label_config).fingerprint() == made_for:
        return []
    return [
        f"the label config has changed since {project.probabilities} was imported: import probabilities for the new"
        " one, or let `second-look cycle` train"
    ]


class NothingLeft(RuntimeError):
    """The tasks of the file were deleted before they could be ranked."""


class Import(Work):
    """One job of kind `probabilities`."""

    kind = KIND

    def run(self) -> int:
        """Run, or go on with, the import; returns the number of the version it made and published.

        Raises Stopped, NothingLeft, and what Label Studio's calls raise.
        """
        self.number = self._number()
        self.folder = self.registry.version(self.project_id, self.number)
        project = self.store.project(self.project_id)
        assert project is not None  # a job belongs to a project
        self.settings = self.settings.tuned(project.extra_params)
        label_config = project.label_config
        schema = parse_label_config(label_config)
        self._begin("scoring", self.number)
        path = self.folder / "imported.npz"
        if not path.exists():
            Probabilities.load(_staged(self.registry, self.project_id)).save(path)
        given = Probabilities.load(path)
        if self._new():
            taken, scored = self._score(schema, label_config, given)
            self._complete(schema, label_config, given, taken, scored)
        self._publish(self.number)
        return self.number

    def _new(self) -> bool:
        with self.store.begin() as session:
            return session.get(Version, (self.project_id, self.number)) is None

    def _score(self, schema: Schema, label_config: str, given: Probabilities) -> tuple[Snapshot, Scored]:
        """Score the tasks of the file that are still there, by the labels on record now."""
        ids, blocks = given.blocks()
        everything = take(self.store, label_config, self.project_id, unread=True)
        taken = everything.of(np.flatnonzero(np.isin(everything.ids, ids)))
        place = np.searchsorted(taken.ids, ids)
        kept = []
        for rows, values in blocks:
            here = np.isin(ids[rows], taken.ids)
            if here.any():
                kept.append((place[rows[here]], {name: p[:, here] for name, p in values.items()}))
        if not kept:
            raise NothingLeft(f"none of the tasks in {given.name} is in the project any more")
        scored = score(
            taken.ids,
            np.full(len(taken.ids), ""),
            schema.heads,
            kept,
            taken.recorded,
            self.settings.uncertainty,
        )
        if self.settings.acquisition:
            members.save(self.folder / "members.npz", taken.ids, kept)
        scored.save(self.folder / "predictions.npz")
        return taken, scored

    def _complete(
        self, schema: Schema, label_config: str, given: Probabilities, taken: Snapshot, scored: Scored
    ) -> None:
        """Evaluate on the hold-out, where there is one, and let the version become the project's."""
        held = taken.folds == HOLDOUT
        metrics = {
            head.name: evaluate(head, scored.probabilities[head.name][held], taken.targets[head.name][held])
            | {"adjudicated": int(taken.adjudicated[head.name][held].sum())}
            for head in schema.heads
            if head.name in scored.probabilities
        }
        learnt = [head for head in schema.heads if head.name in scored.probabilities]
        centres.look(self.store, self.project_id, self.folder, learnt, taken, scored)
        with self.store.begin() as session:
            head_then = ledger.head(session, self.project_id)
        about = {
            "version": self.number,
            "schema": schema.fingerprint(),
            "label_config": label_config,
            "heads": list(metrics),
            "probabilities": {"file": given.name, "sha256": given.sha256},
            "data": taken.fingerprint(),
            "labels": 0,
            "holdout": metrics,
            "ledger": kept_heads.as_json(head_then),
        }
        save_json(self.folder / "model.json", about)
        with self.store.begin() as session:
            lock_project(session, self.project_id)
            verdict = asdict(gate.untested(self.number, f"{given.name} was imported: it was asked for"))
            session.add(self._version(session, self.number, schema.fingerprint(), 0, metrics, verdict))
            project = session.get_one(Project, self.project_id)
            project.version, project.probabilities = self.number, given.name
            body = {"version": self.number, "file": given.name, "sha256": given.sha256, "data": about["data"]}
            body["model"] = kept_heads.file_digest(self.folder / "model.json")
            ledger.append(session, self.project_id, "imported", body)
