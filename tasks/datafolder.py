"""A data folder: `labels.csv` beside its images, read against a label config into task data and the known truth.

`file` names the image, relative to the folder. A head's column is called as its `model_current` field, else as the
control; several classes of a multiple choice are joined by "|". Group and site columns are called as the fields of
`model_group` and `model_site`. A mask head's column is called as its control, and names the file of the mask, relative
to the folder (`mask_files`). A column `true_<column>` holds the truth of a head where that is known: it is what an
oracle answers and scores are measured against, and it never gets into task data.
"""

import csv
import dataclasses
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from tasks.codec import Result, decode_current, encode_labels
from tasks.mask_codec import encode_masks
from tasks.mask_files import MaskError, read_mask, size_of
from tasks.mask_heads import MaskHead
from tasks.schema import Head, Labels, Schema

TRUE = "true_"


class DataFolderError(ValueError):
    """Nothing in the folder can be used; the message says what to change."""


@dataclass(frozen=True)
class Row:
    """One image. `recorded`: its labels as in the CSV; `truth`: those of the true_ columns, else the recorded ones.

    line: its line in labels.csv. cells: by column, stripped, without the true_ columns. group: what must stay
    together (the patient), else the file itself. masks, true_masks: files of masks by mask head, likewise.
    """

    line: int
    file: str
    group: str
    cells: Mapping[str, str]
    recorded: Labels
    truth: Labels
    masks: Mapping[str, str] = dataclasses.field(default_factory=dict)
    true_masks: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class DataFolder:
    """The usable rows of a data folder.

    problems: a sentence for each row left out, each mask and each label not read. uncovered: per column of a head, how
    often each value occurs that is no class of the control; those labels count as missing, their rows are kept.
    """

    folder: Path
    schema: Schema
    fields: tuple[str, ...]
    rows: tuple[Row, ...]
    problems: tuple[str, ...]
    uncovered: Mapping[str, Mapping[str, int]]

    @property
    def document_root(self) -> Path:
        """The folder above: Label Studio serves only what lies below its document root, never the root itself."""
        return self.folder.parent

    @property
    def truth(self) -> dict[str, Labels]:
        """What is known of each image, by file; {} where nothing is."""
        return {row.file: row.truth for row in self.rows}

    @property
    def unlabelled(self) -> tuple[str, ...]:
        """Files of the rows without any recorded label or mask."""
        return tuple(row.file for row in self.rows if not row.recorded and not row.masks)

    def task_data(self, recorded: bool = True) -> list[dict[str, Any]]:
        """One `data` object a row, as Label Studio imports it; every value a text, "" where the CSV has none.

        The image is an address that Label Studio serves when the folder is a local storage below `document_root`.
        recorded: with the recorded labels. Without, their fields are "": the label config may show them all the same.
        """
        labels = () if recorded else {head.current or head.name for head in self.schema.heads}
        return [
            {field: "" if field in labels else text for field, text in self._data(row).items()} for row in self.rows
        ]

    def annotations(self, user: int) -> dict[str, list[dict[str, Any]]]:
        """The recorded labels as annotations by that user, as Label Studio imports them, by file; for `task_data` with
        recorded=False. Rows without a recorded label have none.

        Masks are there where a row has one for every mask head: they say what the whole image shows, also that nothing
        is in it where the label config has a `scope` control to say so. Raises MaskError where a file is gone.
        """
        recorded = {row.file: encode_labels(self.schema, row.recorded) + self._regions(row) for row in self.rows}
        return {file: [{"result": result, "completed_by": user}] for file, result in recorded.items() if result}

    def mask(self, row: Row, head: str, truth: bool = False) -> NDArray[np.uint8]:
        """The masks (C, H, W) of a row for a mask head, 1 inside each of its classes.

        truth: of `true_masks`, else of `masks`. Raises KeyError where the row has none, MaskError where the file is
        gone.
        """
        classes = next(len(one.classes) for one in self.schema.masks if one.name == head)
        return read_mask(self.folder / (row.true_masks if truth else row.masks)[head], classes)

    def _regions(self, row: Row) -> list[Result]:
        """The recorded masks as an annotation's regions, with the word that the whole image was looked at."""
        heads = self.schema.masks
        if not heads or any(head.name not in row.masks for head in heads):
            return []
        masks = {head.name: self.mask(row, head.name) != 0 for head in heads}
        height, width = masks[heads[0].name].shape[1:]
        sure = {head.name: [1.0] * len(head.classes) for head in heads}
        found = encode_masks(self.schema, height, width, masks, sure)
        regions: list[Result] = [{key: value for key, value in one.items() if key != "score"} for one in found]
        scope = self.schema.roles.get("scope")
        if scope is not None and "image" in scope.classes:
            about = {"id": f"{scope.name}-0", "from_name": scope.name, "to_name": scope.to_name, "type": "choices"}
            regions.append(about | {"value": {"choices": ["image"]}})
        return regions

    def sample(self, n: int, seed: int) -> "DataFolder":
        """Up to n rows, drawn by whole groups (patients) and left in their order; the same for the same seed."""
        if n >= len(self.rows):
            return self
        groups: dict[str, list[Row]] = defaultdict(list)
        for row in self.rows:
            groups[row.group].append(row)
        names = list(groups)
        chosen: set[str] = set()
        left = n
        for index in np.random.default_rng(seed).permutation(len(names)):
            if len(groups[names[index]]) <= left:
                chosen.add(names[index])
                left -= len(groups[names[index]])
        return replace(self, rows=tuple(row for row in self.rows if row.group in chosen))

    def _data(self, row: Row) -> dict[str, Any]:
        path = (self.folder / row.file).relative_to(self.document_root).as_posix()
        data = {self.schema.image_field: f"/data/local-files/?d={quote(path)}", "file": row.file}
        return {field: row.cells.get(field, "") for field in self.fields if field not in data} | data


def read(folder: Path, schema: Schema, fields: Collection[str] = ()) -> DataFolder:
    """Read <folder>/labels.csv against a schema.

    fields: further task fields that the label config shows (`labelstudio.config_fields`), taken from the columns of
    the same name. Rows without a usable image are reported and left out. Labels that are no class of their control, and
    masks that cannot be read or are of another size than the image, are reported and count as missing. Raises
    DataFolderError when no row or no label column is left.
    """
    folder = folder.resolve()
    path = folder / "labels.csv"
    if schema.image_field == "file":
        raise DataFolderError('The label config takes the image from "$file", which names the row: use "$image".')
    header, lines = _read_csv(path)
    columns = {head.name: head.current or head.name for head in schema.heads}
    columns |= {head.name: head.name for head in schema.masks}
    problems = _missing_columns(path, header, columns, schema)
    heads = [(replace(head, current=columns[head.name]), columns[head.name]) for head in schema.heads]
    uncovered: dict[str, Counter[str]] = defaultdict(Counter)
    first: dict[tuple[str, str], int] = {}
    rows: dict[str, Row] = {}
    for line, cells, problem in lines:
        file = cells.get("file", "")
        problem = problem or _unusable(folder, file)
        if not problem and file in rows:
            problem = f"column 'file': {file!r} is already on line {rows[file].line}"
        if problem:
            problems.append(f"{path.name} line {line}: {problem}. The row is left out.")
            continue
        labels: dict[str, Labels] = {"": {}, TRUE: {}}
        for (head, column), prefix in ((pair, prefix) for pair in heads for prefix in labels):
            text = cells.get(prefix + column, "")
            label = _decode(schema, head, column, text)
            if label is not None:
                labels[prefix][head.name] = label
            elif text:
                uncovered[prefix + column][text] += 1
                first.setdefault((prefix + column, text), line)
        masks: dict[str, dict[str, str]] = {"": {}, TRUE: {}}
        for drawn, prefix in ((drawn, prefix) for drawn in schema.masks for prefix in masks):
            name = cells.get(prefix + drawn.name, "")
            problem = _unusable_mask(folder, file, name, drawn) if name else ""
            if problem:
                problems.append(f"{path.name} line {line}, column {prefix + drawn.name!r}: {problem}. It is left out.")
            elif name:
                masks[prefix][drawn.name] = name
        shown = {column: text for column, text in cells.items() if not column.startswith(TRUE)}
        group = cells.get(schema.group_field, "") if schema.group_field else ""
        truth, true_masks = labels[""] | labels[TRUE], masks[""] | masks[TRUE]
        rows[file] = Row(line, file, group or file, shown, labels[""], truth, masks[""], true_masks)
    if not rows:
        reasons = "\n".join(problems[:5])
        raise DataFolderError(f"{path} has no row that can be used.\n{reasons}".rstrip())
    problems += _uncovered_problems(path, heads, uncovered, first)
    current = [head.current for head in schema.heads if head.current]
    known = [field for field in (schema.group_field, schema.site_field, *current, *fields) if field]
    kept = tuple(dict.fromkeys(field for field in known if not field.startswith(TRUE)))
    return DataFolder(folder, schema, kept, tuple(rows.values()), tuple(problems), uncovered)


def _read_csv(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str], str]]]:
    """The header, and for each row its line, its cells by column, and what is wrong with its shape ("": nothing)."""
    if not path.is_file():
        raise DataFolderError(f"{path} is missing: a data folder has a labels.csv beside its images.")
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            header = [name.strip() for name in next(reader, [])]
            lines, line = [], reader.line_num + 1
            for cells in reader:
                surplus = [cell for cell in cells[len(header) :] if cell.strip()]
                problem = f"{len(cells)} cells for {len(header)} columns (is a quote missing?)" if surplus else ""
                if any(cell.strip() for cell in cells):
                    row = dict(zip(header, (cell.strip() for cell in cells), strict=False))
                    lines.append((line, row, problem))
                line = reader.line_num + 1
    except UnicodeDecodeError as error:
        raise DataFolderError(f"{path} is not UTF-8 (byte {error.start}): save it as UTF-8 CSV.") from error
    except csv.Error as error:
        raise DataFolderError(f"{path} line {reader.line_num} is not CSV: {error}.") from error
    twice = [name for name, count in Counter(header).items() if count > 1 and name]
    if twice:
        raise DataFolderError(f"{path} has more than one column {', '.join(map(repr, twice))}: rename all but one.")
    if "file" not in header:
        raise DataFolderError(
            f"{path} has no column 'file' naming each image. Columns found: {', '.join(map(repr, header))}"
            " (columns are separated by commas)."
        )
    return header, lines


def _missing_columns(path: Path, header: Sequence[str], columns: Mapping[str, str], schema: Schema) -> list[str]:
    absent = {name: column for name, column in columns.items() if column not in header}
    if len(absent) == len(columns):
        raise DataFolderError(
            f"{path} has none of the label config's columns ({', '.join(columns.values())})."
            f" Columns found: {', '.join(header)}. Rename them, or name yours in model_current."
        )
    problems = [
        f"{path.name} has no column {column!r}: control {name!r} has no labels." for name, column in absent.items()
    ]
    for attribute, field in (("model_group", schema.group_field), ("model_site", schema.site_field)):
        if field and field not in header:
            problems.append(f"{path.name} has no column {field!r}, which {attribute} names: it stays empty.")
    return problems


def _unusable(folder: Path, file: str) -> str:
    if not file:
        return "column 'file' is empty"
    parts = PurePosixPath(file)
    if parts.is_absolute() or ".." in parts.parts:
        return f"column 'file': {file!r} leaves the folder"
    if not (folder / file).is_file():
        return f"column 'file': there is no {file!r} in the folder"
    return ""


def _unusable_mask(folder: Path, file: str, name: str, head: MaskHead) -> str:
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts:
        return f"the mask {name!r} leaves the folder"
    try:
        read_mask(folder / name, len(head.classes), size_of(folder / file))
    except MaskError as error:
        return f"the mask {name!r} is of no use: {error}"
    return ""


def _decode(schema: Schema, head: Head, column: str, text: str) -> tuple[str, ...] | None:
    if not text:
        return None
    labels, _ = decode_current(replace(schema, heads=(head,)), {column: text})
    return labels.get(head.name)


def _uncovered_problems(
    path: Path,
    heads: Sequence[tuple[Head, str]],
    uncovered: Mapping[str, Mapping[str, int]],
    first: Mapping[tuple[str, str], int],
) -> list[str]:
    problems = []
    for head, column in heads:
        for name in (column, TRUE + column):
            for value, count in uncovered.get(name, {}).items():
                rows = "1 row" if count == 1 else f"{count} rows"
                problems.append(
                    f"{path.name} line {first[name, value]}, column {name!r}: {value!r} is no class of control"
                    f" {head.name!r} ({', '.join(head.classes)}); it counts as missing ({rows} with this value)."
                )
    return problems
