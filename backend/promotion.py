"""An admin's word over the gate's: any kept version is put in force again, on the record.

It gets a new number, with the old one's weights and scores: an order published twice under one number could not be told
apart, neither in Label Studio nor in the ledger.
"""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select

from backend import kept_heads
from backend.evaluation.gate import Verdict
from backend.registry import Registry, load_json, save_json, whole
from backend.work import Work
from tasks import ledger
from tasks.schema import parse_label_config
from tasks.store import Store, lock_project
from tasks.tables import Project, Version

KIND = "promotion"  # of the job
LEFT = ("model.json", "promotion.json")  # of a version's files those that its copy has of its own


@dataclass(frozen=True)
class Decision:
    """Which version is to be in force, who says so, and why."""

    version: int
    who: str
    because: str


class NotPromotable(ValueError):
    """That version cannot be put in force; the message says why."""


def check(store: Store, registry: Registry, project_id: int, number: int) -> None:
    """Raise NotPromotable unless the version can be put in force now."""
    with store.begin() as session:
        project = session.get_one(Project, project_id)
        version = session.get(Version, (project_id, number))
    if version is None:
        raise NotPromotable(f"project {project_id} has no version {number}: `second-look models` lists those it has")
    if number == project.version:
        raise NotPromotable(f"version {number} is in force already")
    if missing := gone(registry, project_id, number):
        raise NotPromotable(f"{missing} of version {number} is gone from the state folder: it cannot be put in force")
    if version.schema != parse_label_config(project.label_config).fingerprint():
        raise NotPromotable(
            f"version {number} was made for another label config: bring that back, or let `second-look cycle` train"
        )


def gone(registry: Registry, project_id: int, number: int) -> str | None:
    """What of a version's files is not there any more; None where it is kept whole."""
    folder = registry.version(project_id, number)
    if not (folder / "model.json").exists() or not (folder / "predictions.npz").exists():
        return "the folder"
    choice = folder / "backbones.json"
    if choice.exists() and not (registry.backbones(project_id, load_json(choice)["number"]) / "made.json").exists():
        return "the backbone"
    return None


def listed(store: Store, registry: Registry, project_id: int) -> list[dict[str, Any]]:
    """The project's versions by number: version, created_at (seconds since the epoch), labels, in_force, published,
    kept (whether it can be put in force again), holdout (figures per head, as it kept them) and verdict.
    """
    with store.begin() as session:
        project = session.get_one(Project, project_id)
        query = select(Version).where(Version.project_id == project_id).order_by(Version.number)
        return [
            {
                "version": version.number,
                "created_at": version.created_at,
                "labels": version.labels,
                "in_force": version.number == project.version,
                "published": version.number == project.published,
                "kept": gone(registry, project_id, version.number) is None,
                "holdout": version.metrics,
                "verdict": version.verdict,
            }
            for version in session.scalars(query)
        ]


def stage(registry: Registry, project_id: int, decision: Decision) -> None:
    """Leave a checked decision where the project's next job of this kind finds it."""
    save_json(_staged(registry, project_id), asdict(decision))


def _staged(registry: Registry, project_id: int) -> Path:
    return registry.version(project_id, 0).parents[1] / "promotion.json"


class Promotion(Work):
    """One job of kind `promotion`."""

    kind = KIND

    def run(self) -> int:
        """Run, or go on with, the promotion; returns the number under which the version is in force.

        Raises Stopped, NotPromotable, and what Label Studio's calls raise.
        """
        self.number = self._number()
        self.folder = self.registry.version(self.project_id, self.number)
        project = self.store.project(self.project_id)
        assert project is not None  # a job belongs to a project
        self.settings = self.settings.tuned(project.extra_params)
        with self.store.begin() as session:
            made = session.get(Version, (self.project_id, self.number)) is not None
        if not made:
            self._complete(self._decision())
        self._publish(self.number)
        return self.number

    def _decision(self) -> Decision:
        """What was decided when the job began, whatever was since."""
        path = self.folder / "promotion.json"
        if not path.exists():
            save_json(path, load_json(_staged(self.registry, self.project_id)))
        return Decision(**load_json(path))

    def _complete(self, decision: Decision) -> None:
        """Copy the version's files, and let the copy become the project's."""
        self._begin("putting a version in force", self.number)
        check(self.store, self.registry, self.project_id, decision.version)
        source = self.registry.version(self.project_id, decision.version)
        files = (path for path in source.rglob("*") if path.is_file() and path.suffix != ".part")
        for file in sorted(path for path in files if path.relative_to(source).as_posix() not in LEFT):
            with whole(self.folder / file.relative_to(source)) as part:
                shutil.copyfile(file, part)
        with self.store.begin() as session:
            before = session.get_one(Version, (self.project_id, decision.version))
            champion = session.get_one(Project, self.project_id).version
            head = ledger.head(session, self.project_id)
        reached = asdict(
            Verdict(
                takes_over=True,
                by="admin",
                reason=f"v{decision.version} put in force by {decision.who}: {decision.because}",
                best=self.number,
                against=champion,
            )
        ) | {"of": decision.version, "who": decision.who, "because": decision.because, "test": before.verdict}
        about: dict[str, Any] = load_json(source / "model.json")
        about |= {"version": self.number, "verdict": reached, "ledger": kept_heads.as_json(head)}
        save_json(self.folder / "model.json", about)
        with self.store.begin() as session:
            lock_project(session, self.project_id)
            if session.get(Version, (self.project_id, self.number)) is not None:
                return
            same = (before.schema, before.labels, before.metrics)
            session.add(self._version(session, self.number, *same, reached))
            project = session.get_one(Project, self.project_id)
            project.version = self.number
            project.probabilities = (about.get("probabilities") or {}).get("file")
            entry: dict[str, Any] = {"version": self.number, "data": about["data"], "labels": before.labels}
            entry["temperatures"] = about.get("temperatures", {})
            entry |= {name: reached[name] for name in ("of", "who", "because")}
            entry |= {"instead_of": champion, "model": kept_heads.file_digest(self.folder / "model.json")}
            ledger.append(session, self.project_id, "promoted", entry)
