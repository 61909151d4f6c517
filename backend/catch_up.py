"""Tasks that came, or got another image, after the model was made: read, predicted and ranked without a training.

What the version in force says of them is added to what it said of the others, so that the next refill takes them in
their place behind the published head. A kill costs the step: what is read and embedded is kept, and the scores are
written last.
"""

from pathlib import Path
from typing import Any

import numpy as np
import structlog

from backend import marking, pictures, renewal, scored
from backend.learning import crossfit
from backend.learning.config import LearningConfig
from backend.learning.weights import load_crossfit
from backend.marked import take as take_marks
from backend.marking import Seen
from backend.registry import load_json
from backend.scored import Drawn, Scored, score
from backend.segmentation import ensemble
from backend.snapshot import Snapshot, take
from backend.unets import FOLDER
from backend.work import Work
from tasks.schema import Schema, parse_label_config

log = structlog.get_logger()


class CatchUp(Work):
    """One job of kind `catch-up`."""

    kind = "catch-up"

    def run(self) -> int:
        """Run, or go on with, the job; returns how many tasks were added to the scores of the version in force.

        Raises Stopped, and what Label Studio's calls and the learning raise.
        """
        project = self.store.project(self.project_id)
        if project is None or project.version is None or project.probabilities is not None:
            return 0
        self.settings = self.settings.tuned(project.extra_params)
        folder = self.registry.version(self.project_id, project.version)
        about = load_json(folder / "model.json")
        config = LearningConfig(**about["learning"])

        taken, read = self._look(folder, about, config, project.version)
        new = self._new(folder, taken, read)
        if len(new.ids):
            said = self._score(folder, about, config, new, project.version)
            with self.store.turn(self.project_id):
                renewal.show_anew(self.store, self.client, self.settings, self.project_id, said, folder)
            scored.add(folder, said)
            log.info("caught up", project=self.project_id, version=project.version, tasks=len(new.ids))
        if project.published != project.version:
            self._publish(project.version)  # when it was made, nothing was left to publish
        return len(new.ids)

    def _look(
        self, folder: Path, about: dict[str, Any], config: LearningConfig, version: int
    ) -> tuple[Snapshot, set[int]]:
        """Read the images and give them folds, by the label config and the settings of the version.

        Returns all tasks, and which were read just now.
        """
        progress = self._begin("reading images", version)
        settings = self.settings.model_copy(update={"image_size": config.image_size, "folds": config.folds})
        schema = parse_label_config(about["label_config"])
        read = pictures.read_images(
            self.store,
            self.images,
            self.registry,
            settings,
            self.project_id,
            progress,
            failed=False,
            whole=bool(schema.masks),
        )
        pictures.assign_folds(self.store, schema, settings, self.project_id, folder / "snapshot.npz")
        return take(self.store, about["label_config"], self.project_id), read

    def _new(self, folder: Path, taken: Snapshot, read: set[int]) -> Snapshot:
        """The tasks whose image the version has not scored, and those that were read just now.

        The latter may be new tasks with an old number and an old image, which carry labels of their own.
        """
        known = set(scored.of_version(folder).still(dict(zip(taken.ids.tolist(), taken.pixels.tolist(), strict=True))))
        rows = [row for row, task in enumerate(taken.ids.tolist()) if task in read or task not in known]
        return taken.of(np.array(rows, dtype=np.intp))

    def _score(
        self, folder: Path, about: dict[str, Any], config: LearningConfig, new: Snapshot, version: int
    ) -> Scored:
        """What the version says, as its cycle would have: of labelled tasks by the members that saw none of a group."""
        blocks = []
        progress = self._begin("embedding images", version)
        backbones = self.registry.backbones(self.project_id, int(about["backbones"]))
        members = self._embedded(backbones, config, new.pixels.tolist(), progress)
        if about["heads"]:
            self._begin("predicting", version)
            targets = {head: new.targets[head] for head in about["heads"]}
            fit = load_crossfit(folder / "heads.safetensors")
            blocks = crossfit.predict(fit, members, new.folds, crossfit.labelled_rows(targets))
        schema = parse_label_config(about["label_config"])
        return score(
            new.ids,
            new.pixels,
            schema.learnt,
            [(block.rows, block.members) for block in blocks],
            new.recorded,
            self.settings.uncertainty,
            drawn=self._drawn(folder, schema, new, version),
        )

    def _drawn(self, folder: Path, schema: Schema, new: Snapshot, version: int) -> dict[str, Drawn] | None:
        """What the version's U-Nets make of the new tasks; None where it has none."""
        if not (folder / "seen.npz").exists():
            return None
        progress = self._begin("drawing masks", version)
        marked = take_marks(self.store, self.registry, schema, new, self.project_id)
        found = ensemble.load(folder / FOLDER)
        seen = marking.see(folder, self.registry, schema, new, marked, found, self.settings, progress)
        return seen.by_head(schema, Seen.load(folder / "seen.npz"))
