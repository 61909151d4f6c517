"""What a replay works on: a data folder with wrong labels mixed in, or a project's own finished labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select

from backend.registry import Registry
from backend.replay.noise import Kind, with_noise
from tasks.datafolder import DataFolder
from tasks.labels import by_task, settle
from tasks.schema import Head, Labels, Schema, parse_label_config
from tasks.store import Store
from tasks.tables import Annotation, Task

FEWEST = 50
"""Finished tasks of a project below which a replay would tell nothing."""


class MaterialError(ValueError):
    """There is nothing to replay; the message says why and what to do."""


@dataclass(frozen=True)
class Material:
    """N tasks: their data with the labels on record, the files of their images by address, and the truth.

    A file is an image, or an array of pixels as `Registry.pixels` keeps it.
    """

    label_config: str
    data: Sequence[Mapping[str, Any]]
    files: Mapping[str, Path]
    truth: Sequence[Labels]

    @property
    def schema(self) -> Schema:
        """What the label config asks for."""
        return parse_label_config(self.label_config)


def from_folder(folder: DataFolder, label_config: str, noise: float, kind: Kind, seed: int) -> Material:
    """The rows whose truth of the first head is known, with `noise` of the labels on record exchanged.

    Labels on record are those of the folder; where the truth stands beside them, some of them are wrong already. Raises
    MaterialError where too little is known, ValueError for a noise that cannot be made.
    """
    head = folder.schema.heads[0]
    chosen = [place for place, row in enumerate(folder.rows) if row.truth.get(head.name)]
    if not chosen:
        raise MaterialError(f"{folder.folder}: no row has a label of {head.name!r}, so that nothing can be answered")
    rows = [folder.rows[place] for place in chosen]
    if len({row.truth[head.name] for row in rows}) < 2:
        raise MaterialError(f"{folder.folder}: all labels of {head.name!r} are the same: there is nothing to learn")
    recorded = with_noise([row.recorded for row in rows], head, noise, kind, seed)
    data = folder.task_data()
    said = [data[place] | _fields([head], labels) for place, labels in zip(chosen, recorded, strict=True)]
    files = {
        fields[folder.schema.image_field]: folder.folder / row.file for fields, row in zip(said, rows, strict=True)
    }
    return Material(label_config, said, files, [row.truth for row in rows])


def from_project(
    store: Store, registry: Registry, image_size: int, project_id: int, noise: float, kind: Kind, seed: int
) -> Material:
    """A project's finished tasks: those whose first head a person has decided, and whose pixels are at hand.

    What people decided is the truth, and what was on record before them is to be checked; with `noise`, some of that is
    exchanged, and tasks without a record get the truth as theirs. Raises MaterialError where too little is finished,
    KeyError for a project that the store does not know, ValueError for a noise that cannot be made.
    """
    project = store.project(project_id)
    if project is None:
        raise KeyError(project_id)
    schema = parse_label_config(project.label_config)
    head = schema.heads[0]
    with store.begin() as session:
        query = select(Task).where(Task.project_id == project_id, Task.deleted_at.is_(None), Task.pixels.is_not(None))
        tasks = session.scalars(query.order_by(Task.id)).all()
        said = by_task(session.scalars(select(Annotation).where(Annotation.project_id == project_id)))
    settled = [(task, settle(said.get(task.id, []), task.current)) for task in tasks]
    done = [
        (task, row)
        for task, row in settled
        if head.name in row.adjudicated and registry.pixels(image_size, str(task.pixels)).exists()
    ]
    if len(done) < FEWEST:
        raise MaterialError(
            f"{len(done)} tasks of project {project_id} have a label of {head.name!r} that a person gave, and an image"
            f" that was read at {image_size} pixels: a replay needs {FEWEST}. Review more of them first."
        )
    truth = [{name: row.labels[name] for name in row.adjudicated} for _, row in done]
    if len({row[head.name] for row in truth}) < 2:
        raise MaterialError(f"project {project_id}: all finished labels of {head.name!r} are the same")
    before = [row.current for _, row in done]
    if noise:
        before = [{head.name: right[head.name]} | current for right, current in zip(truth, before, strict=True)]
    recorded = with_noise(before, head, noise, kind, seed)
    data = [task.data | _fields(schema.heads, labels) for (task, _), labels in zip(done, recorded, strict=True)]
    files = {task.image: registry.pixels(image_size, str(task.pixels)) for task, _ in done}
    return Material(project.label_config, data, files, truth)


def _fields(heads: Sequence[Head], labels: Labels) -> dict[str, str]:
    """Labels on record as fields of a task, as a data folder writes them."""
    return {head.current: "|".join(labels.get(head.name, ())) for head in heads if head.current is not None}
