"""One active-learning cycle, step by step: images, folds, backbones, embeddings, heads, scores, verdict, publication.

A cycle may be killed anywhere. What each step makes is a file that appears whole, made from a snapshot of the labels
that was written first; a resumed cycle finds them and ends with the same weights.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import select

from backend import backbones, centres, kept_heads, marking, members, pictures, unets, verdict
from backend.carried import carried
from backend.evaluation.metrics import evaluate
from backend.learning import crossfit
from backend.learning.backbone import with_reachable_weights
from backend.learning.config import LearningConfig
from backend.learning.crossfit import CrossFit
from backend.learning.folds import HOLDOUT
from backend.learning.joined import join
from backend.learning.record import opinions
from backend.learning.weights import save_crossfit, temperatures
from backend.marked import Marked
from backend.marked import take as take_marks
from backend.marking import Seen
from backend.registry import load_json, save_json
from backend.scored import Floats, Scored, score
from backend.snapshot import Snapshot, take
from backend.weighing import Weighing, account, in_doubt, weigh
from backend.work import Work
from tasks import ledger
from tasks.schema import Head, parse_label_config
from tasks.store import lock_project
from tasks.tables import Annotation, Project, Version

log = structlog.get_logger()


class NoTasks(RuntimeError):
    """There is nothing to learn from or to order yet."""


class Cycle(Work):
    """One job of kind `cycle`."""

    kind = "cycle"

    def run(self) -> int:
        """Run, or go on with, the cycle; returns the number of the version it made.

        Where that one is refused, the order of the model in force goes on, filled up.

        Raises Stopped, NoTasks, and what Label Studio's calls and the learning raise.
        """
        self.number = self._number()
        self.folder = self.registry.version(self.project_id, self.number)
        project = self.store.project(self.project_id)
        assert project is not None  # a job belongs to a project
        self.settings = self.settings.tuned(project.extra_params)
        # A cycle that was completed, and killed before it had published, is its own predecessor: it needs none then.
        self.before = self.registry.version(self.project_id, project.version or 0)

        taken = self._snapshot(project.label_config)
        self.schema = parse_label_config(taken.label_config)
        heads = taken.learnable(self.schema.heads)
        config, folder = self._backbones(taken, heads)
        members = self._embeddings(taken, config, folder)
        marked = self._marked(taken)
        seen = None if marked is None else self._masks(taken, marked)
        scored = self._score(taken, heads, config, folder, members, seen)
        self._publish(self._complete(taken, heads, scored, config, folder, marked, seen))
        return self.number

    def _snapshot(self, label_config: str) -> Snapshot:
        path = self.folder / "snapshot.npz"
        if path.exists():
            return Snapshot.load(path)
        progress, schema = self._begin("reading images", self.number), parse_label_config(label_config)
        pictures.read_images(
            self.store, self.images, self.registry, self.settings, self.project_id, progress, whole=bool(schema.masks)
        )
        pictures.assign_folds(self.store, schema, self.settings, self.project_id, self.before / "snapshot.npz")
        taken = take(self.store, label_config, self.project_id)
        if not len(taken.ids):
            raise NoTasks(
                "the project has no task whose image could be read yet: import some; `status` names those that failed"
            )
        taken.save(path)
        return taken

    def _backbones(self, taken: Snapshot, heads: tuple[Head, ...]) -> tuple[LearningConfig, Path]:
        """The learning config in force, and the folder of the backbones to use."""
        progress = self._begin("training backbones", self.number)
        choice = self.folder / "backbones.json"
        if not choice.exists():
            config, said = with_reachable_weights(self.settings.learning)
            if said is not None:
                log.warning("no pretrained weights", project=self.project_id, reason=said)
            refused = verdict.refused(self.store, self.registry, self.project_id)
            number = backbones.choose(self.registry, self.project_id, self.number, taken, heads, config, refused)
            save_json(choice, {"number": number, "weights": config.weights})
        chosen: dict[str, Any] = load_json(choice)
        config = self.settings.model_copy(update={"weights": chosen["weights"]}).learning
        folder = self.registry.backbones(self.project_id, chosen["number"])
        backbones.make(folder, taken, heads, config, self._pixels(config, taken.pixels), progress)
        return config, folder

    def _embeddings(self, taken: Snapshot, config: LearningConfig, folder: Path) -> list[Floats]:
        progress = self._begin("embedding images", self.number)
        return self._embedded(folder, config, taken.pixels.tolist(), progress)

    def _marked(self, taken: Snapshot) -> Marked | None:
        """What is marked in the images; None where the label config asks for no masks."""
        if not self.schema.masks:
            return None
        path = self.folder / "marked.json"
        if not path.exists():
            take_marks(self.store, self.registry, self.schema, taken, self.project_id).save(path)
        return Marked.load(path)

    def _masks(self, taken: Snapshot, marked: Marked) -> Seen | None:
        """Train the U-Nets and let them draw every image; None while too little is marked."""
        path = self.folder / "seen.npz"
        if path.exists():
            return Seen.load(path)
        progress = self._begin("training U-Nets", self.number)
        whose = (self.folder, self.before, self.registry, self.schema, taken, marked, self.settings)
        found = unets.learn(*whose, progress)
        if found is None:
            return None
        progress = self._begin("drawing masks", self.number)
        seen = marking.see(self.folder, self.registry, self.schema, taken, marked, found, self.settings, progress)
        seen.save(path)
        return seen

    def _score(
        self,
        taken: Snapshot,
        heads: tuple[Head, ...],
        config: LearningConfig,
        folder: Path,
        points: list[Floats],
        masks: Seen | None,
    ) -> Scored:
        """Fit the heads of every fold and score every task."""
        path = self.folder / "predictions.npz"
        if path.exists():
            return Scored.load(path)
        self._begin("fitting heads", self.number)
        rule, threshold = self.settings.suspects, self.settings.disagreement_threshold
        weighing = weigh(taken, heads, points, config, rule, threshold)
        blocks, judged, doubt = [], None, weighing.suspects
        if heads:
            fit = self._fit(taken, heads, weighing, config, folder, points)
            save_crossfit(fit, self.folder / "heads.safetensors")
            targets = {head.name: taken.targets[head.name] for head in heads}
            predicted = crossfit.predict(fit, points, taken.folds, crossfit.labelled_rows(targets))
            blocks = [(block.rows, block.members) for block in predicted]
            seen = crossfit.mean_probabilities(predicted, len(taken.ids))
            judged = opinions(heads, seen, targets, taken.folds)
            doubt = in_doubt(taken, heads, judged, threshold) if doubt is None else doubt
        told = account(taken, rule, doubt or {})
        log.info("labels weighed", project=self.project_id, version=self.number, suspects=rule, heads=told)
        learnt = {head.name: weighing.learnt_from(taken, head) for head in heads}
        save_json(self.folder / "weighing.json", {"suspects": rule, "heads": told, "learnt_from": learnt})
        if self.settings.acquisition:
            members.save(self.folder / "members.npz", taken.ids, blocks)
        scored = score(
            taken.ids,
            taken.pixels,
            self.schema.learnt,
            blocks,
            taken.recorded,
            self.settings.uncertainty,
            judged,
            None if masks is None else masks.by_head(self.schema),
        )
        scored.save(path)
        return scored

    def _fit(
        self,
        taken: Snapshot,
        heads: tuple[Head, ...],
        weighing: Weighing,
        config: LearningConfig,
        folder: Path,
        points: list[Floats],
    ) -> CrossFit:
        """The heads of every fold: taken over where nothing of theirs has changed, else fitted."""
        learnt = {head.name: weighing.learnt_from(taken, head) for head in heads}
        kept = carried(self.before, heads, learnt, config, folder.name)
        changed = [head for head in heads if kept is None or head.name not in kept.multiple]
        log.info("fitting", project=self.project_id, version=self.number, heads=[head.name for head in changed])
        if kept is not None and not changed:
            return kept
        fit = crossfit.cross_fit(
            points,
            {head.name: taken.targets[head.name] for head in changed},
            taken.folds,
            changed,
            config,
            groups=taken.groups.tolist(),
            row_weights=weighing.weights,
            clean={head.name: taken.clean(head) for head in changed},
        )
        return fit if kept is None else join(kept, fit)

    def _complete(
        self,
        taken: Snapshot,
        heads: tuple[Head, ...],
        scored: Scored,
        config: LearningConfig,
        folder: Path,
        marked: Marked | None,
        seen: Seen | None,
    ) -> int:
        """Evaluate on the hold-out, and let the version become the project's unless it is refused.

        Returns the number of the model in force. What a refused version learnt counts as learnt: the same labels would
        only give the same model again.
        """
        self._begin("evaluating", self.number)
        with self.store.begin() as session:
            if session.get(Version, (self.project_id, self.number)) is not None:
                # The ledger names this version's model.json: it is not written again.
                return session.get_one(Project, self.project_id).version or self.number
            head = ledger.head(session, self.project_id)
        held, weighed = taken.folds == HOLDOUT, load_json(self.folder / "weighing.json")
        metrics = {
            head.name: evaluate(head, scored.probabilities[head.name][held], taken.targets[head.name][held])
            | {"adjudicated": int(taken.adjudicated[head.name][held].sum())}
            | weighed["heads"][head.name]
            for head in heads
        }
        if marked is not None and seen is not None:
            metrics |= seen.metrics(self.schema, held, marked.people)
        labelled = taken.labelled
        if marked is not None:
            labelled[marked.trained(taken.folds)] = True
        if heads:
            centres.look(self.store, self.project_id, self.folder, heads, taken, scored)
        reached = verdict.reach(
            self.store,
            self.registry,
            self.project_id,
            self.number,
            self.schema,
            taken,
            scored,
            self.settings.gate_level,
            marked,
        )
        about = {
            "version": self.number,
            "schema": self.schema.fingerprint(),
            "label_config": taken.label_config,
            "heads": [head.name for head in heads],
            "learnt_from": weighed["learnt_from"],
            "suspects": weighed["suspects"],
            "backbones": folder.name,
            "learning": asdict(config),
            "temperatures": temperatures(self.folder / "heads.safetensors") if heads else {},
            "data": taken.fingerprint(),
            "masks": None if marked is None else marked.fingerprint(taken),
            "labels": int(labelled.sum()),
            "holdout": metrics,
            "verdict": asdict(reached),
            "ledger": kept_heads.as_json(head),
        }
        save_json(self.folder / "model.json", about)
        with self.store.begin() as session:
            lock_project(session, self.project_id)  # an annotation must not change between the look and the mark
            project = session.get_one(Project, self.project_id)
            if session.get(Version, (self.project_id, self.number)) is not None:
                return project.version or self.number
            session.add(
                self._version(session, self.number, about["schema"], about["labels"], metrics, about["verdict"])
            )
            if reached.takes_over:
                project.version, project.probabilities = self.number, None
            in_force = project.version or self.number
            learnt = dict(zip(taken.annotations.tolist(), taken.updated.tolist(), strict=True))
            for row in session.scalars(select(Annotation).where(Annotation.project_id == self.project_id)):
                if learnt.get(row.id) == row.updated_at:
                    row.trained_in = self.number
            entry = {name: about[name] for name in ("version", "data", "masks", "labels", "temperatures", "verdict")}
            entry["model"] = kept_heads.file_digest(self.folder / "model.json")
            ledger.append(session, self.project_id, "trained", entry)
        log.info(
            "trained", project=self.project_id, version=self.number, labels=about["labels"], verdict=reached.reason
        )
        return in_force
