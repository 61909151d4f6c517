"""What a replay works on: a data folder with wrong labels mixed in, or a project's own finished labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.replay.noise import Kind, with_noise
from tasks.datafolder import DataFolder
from tasks.schema import Head, Labels, Schema, parse_label_config


class MaterialError(ValueError):
    """There is nothing to replay; the message says why and what to do."""


@dataclass(frozen=True)
class Material:
    """N tasks: their data with the labels on record, the files of their images by address, and the truth."""

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
    said = [
        data[place] | ({} if head.current is None else {head.current: _text(head, labels)})
        for place, labels in zip(chosen, recorded, strict=True)
    ]
    files = {
        fields[folder.schema.image_field]: folder.folder / row.file for fields, row in zip(said, rows, strict=True)
    }
    return Material(label_config, said, files, [row.truth for row in rows])


def _text(head: Head, labels: Labels) -> str:
    """As a data folder writes it."""
    return "|".join(labels.get(head.name, ()))
