"""A data folder of large images cut into a data folder of their tiles, and what was marked in tiles put together."""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from backend.learning.decode import ImageError, decode_whole
from backend.registry import whole
from tasks.datafolder import TRUE, DataFolder, DataFolderError, Row, read
from tasks.marks import paint, planes
from tasks.schema import Schema
from tasks.takeover import exported
from tasks.tiling import COLUMNS, Place, Tile, cells, places, put_back, read_tile

Bytes = NDArray[np.uint8]
Progress = Callable[[int, int], None]

TABLE = "labels.csv"


@dataclass(frozen=True)
class Cut:
    """What was written. problems: a sentence for each image and mask left out."""

    images: int
    tiles: int
    problems: tuple[str, ...]


@dataclass(frozen=True)
class PutBack:
    """What was written. images: each with the share of its pixels that were reviewed. problems: what is missing."""

    images: Mapping[str, float]
    problems: tuple[str, ...]


def cut(folder: Path, schema: Schema, out: Path, side: int, overlap: int, pixel_limit: int, progress: Progress) -> Cut:
    """Write a data folder `out` with a PNG for each tile of each image of `folder`, and of its masks.

    labels.csv keeps its columns, and has tiling.COLUMNS beside them. What must stay in one fold stays there: where the
    `model_group` column of an image is empty, it becomes the image's file. The same folder gives the same bytes. One
    image at a time is in memory, whole. Raises DataFolderError where nothing can be cut.
    """
    _check_apart(folder, out)
    if schema.group_field in COLUMNS:  # which the folder is about to get
        found = replace(read(folder, replace(schema, group_field=None)), schema=schema)
    else:
        found = read(folder, schema)
    header, lines = _table(found.folder / TABLE)
    if taken := [name for name in COLUMNS if name in header]:
        raise DataFolderError(f"{found.folder / TABLE} has the columns {', '.join(taken)}: it holds tiles already")
    group = schema.group_field
    columns = list(dict.fromkeys([*header, *COLUMNS, *([group] if group else [])]))
    problems, rows, images = list(found.problems), [], 0
    for number, row in enumerate(found.rows):
        progress(number, len(found.rows))
        try:
            pixels = decode_whole(found.folder / row.file, pixel_limit)
        except ImageError as error:
            problems.append(f"{TABLE} line {row.line}: {row.file}: {error}. The row is left out.")
            continue
        height, width = pixels.shape[:2]
        tiles = places(height, width, side, overlap)
        _write_tiles(out, row.file, "", pixels, tiles)
        masks, wrong = _cut_masks(found, row, out, tiles, lines[row.line], (height, width))
        problems += wrong
        for place in tiles:
            about = lines[row.line] | cells(Tile(row.file, place, height, width))
            about |= {column: _name(row.file, place, column) if used else "" for column, used in masks.items()}
            if group and not about.get(group):
                about[group] = row.file
            rows.append(about | {"file": _name(row.file, place)})
        images += 1
    progress(len(found.rows), len(found.rows))
    if not rows:
        raise DataFolderError("\n".join(["no image could be cut", *problems[:5]]))
    with whole(out / TABLE) as part, part.open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    return Cut(images, len(rows), tuple(problems))


def put_together(tiles: Path, schema: Schema, tasks: Sequence[Any], out: Path, progress: Progress) -> PutBack:
    """Write a mask for each image that was cut, of what people marked in its tiles, and a labels.csv that names them.

    tiles: the folder that `cut` wrote. tasks: the tile project's tasks with their annotations, as Label Studio exports
    them in JSON. Whose word holds, and what was reviewed, is as in training; what nobody reviewed is 0. Raises
    DataFolderError where the folder holds no tiles, or nothing of them was marked.
    """
    _check_apart(tiles, out)
    known = _known(tiles)
    problems: list[str] = []
    exports: dict[str, list[tuple[Tile, Any]]] = {tile.image: [] for tile in known.values()}
    for task in tasks:
        try:
            tile = _tile(schema, known, task)
        except ValueError as error:
            problems.append(str(error))
        else:
            exports[tile.image].append((tile, task))
    shares, rows = {}, []
    for number, (image, marked) in enumerate(sorted(exports.items())):
        progress(number, len(exports))
        joined, wrong = _joined(schema, marked)
        problems += wrong
        if joined is None:
            problems.append(f"{image}: nobody reviewed a tile of it. It is left out.")
            continue
        shares[image] = float(joined[0].mean())
        row = {"file": image, "reviewed": f"{shares[image]:.6f}"}
        for head in schema.masks:
            mask, lost = _numbered(joined[1:][[name == head.name for name, _ in planes(schema)]])
            if lost:
                problems.append(f"{image}: {lost} pixels have several classes of {head.name!r}: the last one is kept.")
            row[head.name] = f"{image}.{quote(head.name, safe='')}.png"
            _save(out / row[head.name], mask)
        rows.append(row)
    progress(len(exports), len(exports))
    if not rows:
        raise DataFolderError("\n".join(["nothing was marked in any tile", *problems[:5]]))
    columns = ["file", *(head.name for head in schema.masks), "reviewed"]
    with whole(out / TABLE) as part, part.open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    return PutBack(shares, tuple(problems))


def _check_apart(source: Path, out: Path) -> None:
    if out.resolve() == source.resolve():
        raise DataFolderError(f"{out} is the folder that is read: name another one to write to")
    table = out / TABLE
    if table.is_file() and not {"tile_of", "reviewed"} & set(_table(table)[0]):
        raise DataFolderError(f"{out} holds a data folder that is not of tiles: name another one to write to")


def _table(path: Path) -> tuple[list[str], dict[int, dict[str, str]]]:
    """The header, and by the line it begins on each row as it is written, also what is no label."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream)
        header = [name.strip() for name in next(reader, [])]
        rows, line = {}, reader.line_num + 1
        for row in reader:
            rows[line] = dict(zip(header, (cell.strip() for cell in row), strict=False))
            line = reader.line_num + 1
    return header, rows


def _name(file: str, place: Place, column: str = "") -> str:
    """A tile's file: beside its neighbours', so that folders stay small."""
    kind = f".{quote(column, safe='')}" if column else ""
    return f"{file}/{place.y}-{place.x}{kind}.png"


def _write_tiles(out: Path, file: str, column: str, pixels: Bytes, tiles: Sequence[Place]) -> None:
    for place in tiles:
        window = np.s_[place.y : place.y + place.height, place.x : place.x + place.width]
        _save(out / _name(file, place, column), pixels[window])


def _save(path: Path, pixels: Bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(pixels)).save(path, "PNG", compress_level=1)


def _cut_masks(
    found: DataFolder,
    row: Row,
    out: Path,
    tiles: Sequence[Place],
    line: Mapping[str, str],
    size: tuple[int, ...],
) -> tuple[dict[str, bool], list[str]]:
    """By mask column of a row whether it was cut, and a sentence for each mask that is not of the image's size."""
    done: dict[str, bool] = {}
    problems = []
    for head, truth in ((head.name, truth) for head in found.schema.masks for truth in (False, True)):
        column = TRUE + head if truth else head
        if not line.get(column):
            continue
        done[column] = (row.true_masks if truth else row.masks).get(head) == line[column]
        if not done[column]:
            continue  # `read` named the reason
        mask, _ = _numbered(found.mask(row, head, truth=truth))
        if mask.shape != size:
            done[column] = False
            sizes = f"{mask.shape[1]} x {mask.shape[0]} pixels, and the image {size[1]} x {size[0]}"
            problems.append(f"{TABLE} line {row.line}, column {column!r}: the mask has {sizes}. It is left out.")
            continue
        _write_tiles(out, row.file, column, mask, tiles)
    return done, problems


def _numbered(masks: Bytes) -> tuple[Bytes, int]:
    """Masks (C, H, W) as one (H, W): 255 inside a single class, else the number of the class, counted from 1.

    And how many pixels had several classes.
    """
    if len(masks) == 1:
        return masks[0] * np.uint8(255), 0
    joined = np.zeros(masks.shape[1:], dtype=np.uint8)
    for number, mask in enumerate(masks, start=1):
        joined[mask != 0] = number
    return joined, int((masks.sum(axis=0, dtype=np.uint8) > 1).sum())


def _known(folder: Path) -> dict[str, Tile]:
    """The tiles of a folder by file."""
    try:
        _, lines = _table(folder / TABLE)
    except FileNotFoundError as error:
        raise DataFolderError(f"{folder / TABLE} is missing: name the folder that `second-look tile` wrote") from error
    known = {}
    for line, row in lines.items():
        try:
            known[row.get("file", "")] = read_tile(row)
        except ValueError as error:
            raise DataFolderError(f"{folder / TABLE} line {line} names no tile: {error}") from error
    return known


def _tile(schema: Schema, known: Mapping[str, Tile], task: Any) -> Tile:
    """The tile of a task. Raises ValueError, naming the task."""
    if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
        raise ValueError("A task of the export has no data: export the project as JSON.")
    found = next((known[file] for file in _files(task["data"], schema.image_field) if file in known), None)
    if found is None:
        raise ValueError(f"Task {task.get('id')} is no tile of the folder: its field 'file' names none of labels.csv.")
    return found


def _joined(schema: Schema, tasks: Sequence[tuple[Tile, Any]]) -> tuple[Bytes | None, list[str]]:
    """What was reviewed of an image, and its masks, as one (1 + C, H, W), and what could not be read.

    None where nothing was reviewed.
    """
    parts: list[Bytes] = []
    there: list[Tile] = []
    problems = []
    for tile, task in tasks:
        name = f"Task {task.get('id')}"
        try:
            annotations = [exported(schema, remote) for remote in task["annotations"]]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            problems.append(f"{name} has no readable annotations ({error!r}): export the project as JSON.")
            continue
        marks = paint(schema, annotations, tile.place.height, tile.place.width)
        problems += [f"{name}: {problem}" for problem in marks.problems]
        if marks.reviewed.any():
            parts.append(np.concatenate([marks.reviewed[None], marks.masks]))
            there.append(tile)
    if not parts:
        return None, problems
    size = there[0].image_height, there[0].image_width
    return put_back(parts, [tile.place for tile in there], *size, [part[0] != 0 for part in parts]), problems


def _files(data: Mapping[str, Any], image_field: str) -> Iterator[str]:
    """What a task's tile may be called in labels.csv: its field `file`, or an end of its image's address."""
    yield str(data.get("file"))
    address = unquote(str(data.get(image_field)))
    parts = address.partition("?d=")[2].split("/") if "?d=" in address else address.split("/")
    yield from ("/".join(parts[start:]) for start in range(len(parts)))
