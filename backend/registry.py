"""Models on disk: a folder per version with its weights, schema, calibration, metrics and data fingerprint.

    <state>/projects/<id>/versions/<n>/   snapshot.npz heads.safetensors predictions.npz ranking.npz model.json
    <state>/projects/<id>/backbones/<n>/  the backbones trained for version n, and the embeddings they gave
    <state>/pixels/<size>/                images as small arrays, by the sha256 of their file
    <state>/pixels/whole/                 images at their own size, where masks are learnt
    <state>/painted/                      masks and what is reviewed of them, by the sha256 of the regions

Every file appears whole or not at all, so that a step killed anywhere can be run again.
"""

import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Write to the yielded path; on success it takes the name `path` in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")  # containers share process numbers
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def save_array(path: Path, array: Array) -> None:
    """Write one array as .npy, which can be mapped (no pickles)."""
    with whole(path) as part, part.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def save_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write named arrays as .npz (no pickles)."""
    with whole(path) as part, part.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def load_arrays(path: Path) -> dict[str, Array]:
    """Read what save_arrays wrote."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def save_json(path: Path, value: Any) -> None:
    """Write readable JSON."""
    with whole(path) as part:
        part.write_text(json.dumps(value, indent=1))


def load_json(path: Path) -> Any:
    """Read what save_json wrote."""
    return json.loads(path.read_text())


class Registry:
    """Where things lie under the state folder."""

    def __init__(self, state_dir: Path) -> None:
        self.root = state_dir

    def version(self, project_id: int, number: int) -> Path:
        """The folder of a model version."""
        return self.root / "projects" / str(project_id) / "versions" / str(number)

    def newest(self, project_id: int) -> int:
        """The highest version number that has a folder; 0 where there is none."""
        return max((int(path.name) for path in self.version(project_id, 0).parent.glob("*")), default=0)

    def backbones(self, project_id: int, number: int) -> Path:
        """The folder of the backbones that were trained for version `number`."""
        return self.root / "projects" / str(project_id) / "backbones" / str(number)

    def pixels(self, size: int, digest: str) -> Path:
        """The .npy file of an image brought to size x size."""
        return self.root / "pixels" / str(size) / digest[:2] / f"{digest}.npy"

    def whole(self, digest: str) -> Path:
        """The .npy file of an image at its own size."""
        return self.root / "pixels" / "whole" / digest[:2] / f"{digest}.npy"

    def painted(self, digest: str) -> Path:
        """The .npy file of the masks that some regions come to."""
        return self.root / "painted" / digest[:2] / f"{digest}.npy"
