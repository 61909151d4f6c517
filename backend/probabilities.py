"""Out-of-fold probabilities that were made elsewhere, as a CSV file: read whole, or refused with every fault named.

One column names the task: `task` (Label Studio's number), `image` (the value of the task's image field) or `file` (the
task's own `file` field, as data folders have it). One column per control and class holds a probability, named
`control:class`, for every class of every control that the file speaks of. Several rows of one task, told apart by a
column `member`, are an ensemble, whose spread the measures `bald` and `variance` use. Other columns are left alone.
"""

import csv
import hashlib
import io
from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.registry import load_arrays, save_arrays
from tasks.schema import Head

Floats = NDArray[np.float32]

KEYS = ("task", "image", "file")
TOLERANCE = 1e-3  # of a sum of probabilities: files are written with few digits
FAULTS = 20  # named in full


class BadProbabilities(ValueError):
    """The file cannot be used; the message names every fault with its line, the first FAULTS in full."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        more = [f"and {len(faults) - FAULTS} more"] if len(faults) > FAULTS else []
        super().__init__("\n".join([*faults[:FAULTS], *more]))


@dataclass(frozen=True)
class Probabilities:
    """R rows: what one member says of one task; rows of a task lie together, ordered by task and member.

    tasks: int64 (R,). heads: name -> float32 (R, C), classes in the order of the label config. name, sha256: of the
    file. left_alone: its columns that were not used.
    """

    tasks: NDArray[np.int64]
    heads: Mapping[str, Floats]
    name: str
    sha256: str
    left_alone: tuple[str, ...] = ()

    def blocks(self) -> tuple[NDArray[np.int64], list[tuple[NDArray[np.intp], dict[str, Floats]]]]:
        """The N tasks (int64, ascending), and blocks (rows (n,), head -> (M, n, C)) of tasks with M members each."""
        ids, first, counts = np.unique(self.tasks, return_index=True, return_counts=True)
        blocks = []
        for members in np.unique(counts):
            rows = np.flatnonzero(counts == members)
            where = first[rows][None, :] + np.arange(members)[:, None]
            blocks.append((rows, {head: values[where] for head, values in self.heads.items()}))
        return ids, blocks

    def save(self, path: Path) -> None:
        """Write it as one file."""
        about = {"name": np.array(self.name), "sha256": np.array(self.sha256), "tasks": self.tasks}
        save_arrays(path, about | {f"p:{head}": values for head, values in self.heads.items()})

    @classmethod
    def load(cls, path: Path) -> "Probabilities":
        """Read what save wrote."""
        arrays = load_arrays(path)
        heads = {name[2:]: values for name, values in arrays.items() if name.startswith("p:")}
        return cls(arrays["tasks"], heads, str(arrays["name"]), str(arrays["sha256"]))


def read(path: Path, heads: Sequence[Head], names: Mapping[str, Mapping[str, Collection[int]]]) -> Probabilities:
    """Read and check a file.

    heads: those of the label config. names: for each of KEYS, the tasks that a value stands for.
    Raises BadProbabilities; OSError where the file cannot be read.
    """
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadProbabilities([f"{path.name} is not UTF-8 text (byte {error.start}); save it as CSV UTF-8"]) from error
    rows = _rows(text)
    _, header = next(rows, (0, []))
    columns = _Columns(header, heads)
    table = _Table(columns, names[columns.key])
    for line, row in rows:
        table.take(line, row)
    return table.whole(path.name, hashlib.sha256(raw).hexdigest())


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """Each row with its line number; blank lines are none."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise BadProbabilities([f"line {reader.line_num}: no valid CSV ({error})"]) from error


class _Columns:
    """What the header says: the key's column, the member's, and where each head's classes are."""

    def __init__(self, header: Sequence[str], heads: Sequence[Head]) -> None:
        names = [name.strip() for name in header]
        expected = {f"{head.name}:{cls}": head for head in heads for cls in head.classes}
        given = [key for key in KEYS if key in names]
        faults = [f"the column {name!r} comes twice" for name in sorted({n for n in names if names.count(n) > 1})]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            faults.append(f"one column must name the task: {', '.join(KEYS)}; the file has {found}")
        known = "; ".join(f"{head.name} ({', '.join(head.classes)})" for head in heads)
        faults += [
            f"the column {name!r} is no control:class of the label config, which has: {known}"
            for name in names
            if ":" in name and name not in expected
        ]
        self.heads = tuple(head for head in heads if any(f"{head.name}:{cls}" in names for cls in head.classes))
        for head in self.heads:
            lacking = [cls for cls in head.classes if f"{head.name}:{cls}" not in names]
            if lacking:
                faults.append(f"the classes {', '.join(map(repr, lacking))} of {head.name!r} have no column")
        if not self.heads:
            faults.append(f"no column holds probabilities, as {next(iter(expected))!r} would")
        if faults:
            raise BadProbabilities([f"line 1: {fault}" for fault in faults])
        self.key, self.count = given[0], len(names)
        self.key_at = names.index(self.key)
        self.member_at = names.index("member") if "member" in names else None
        self.values = [names.index(f"{head.name}:{cls}") for head in self.heads for cls in head.classes]
        self.names = [names[index] for index in self.values]
        used = {self.key_at, self.member_at, *self.values}
        self.left_alone = tuple(name for index, name in enumerate(names) if index not in used)


class _Table:
    """The rows read so far, and the faults found in them."""

    def __init__(self, columns: _Columns, tasks_of: Mapping[str, Collection[int]]) -> None:
        self.columns, self.tasks_of = columns, tasks_of
        self.faults: list[tuple[int, str]] = []
        self.lines, self.tasks, self.members = array("q"), array("q"), list[str]()
        self.values = array("d")
        self.seen: dict[tuple[int, str], int] = {}

    def take(self, line: int, row: Sequence[str]) -> None:
        """Keep a row, or its faults."""
        if len(row) != self.columns.count:
            self.faults.append((line, f"{len(row)} cells where the header has {self.columns.count}"))
            return
        task = self._task(line, row[self.columns.key_at].strip())
        try:
            numbers = [float(row[at]) for at in self.columns.values]
        except ValueError:
            numbers = []
            for name, at in zip(self.columns.names, self.columns.values, strict=True):
                if not _is_number(row[at]):
                    self.faults.append((line, f"{name} is {row[at]!r}, which is no number"))
        if task is None or not numbers:
            return
        member = "" if self.columns.member_at is None else row[self.columns.member_at].strip()
        before = self.seen.setdefault((task, member), line)
        if before != line:
            which = f" with the member {member!r}" if self.columns.member_at is not None else ""
            advice = "" if which else "; several members of one task need a column 'member'"
            self.faults.append((line, f"task {task}{which} came in line {before} already{advice}"))
            return
        self.lines.append(line)
        self.tasks.append(task)
        self.members.append(member)
        self.values.extend(numbers)

    def _task(self, line: int, value: str) -> int | None:
        found = self.tasks_of.get(value, ())
        if len(found) == 1:
            return next(iter(found))
        key = self.columns.key
        if not found:
            self.faults.append((line, f"no task of the project has the {key} {value!r}"))
        else:
            listed = ", ".join(map(str, sorted(found)[:3]))
            self.faults.append((line, f"several tasks have the {key} {value!r} ({listed}): name them by 'task'"))
        return None

    def whole(self, name: str, sha256: str) -> Probabilities:
        """All rows, checked; raises BadProbabilities."""
        values = np.frombuffer(self.values, dtype=np.float64).reshape(len(self.lines), len(self.columns.values))
        heads, start = dict[str, Floats](), 0
        for head in self.columns.heads:
            p = values[:, start : start + len(head.classes)]
            start += len(head.classes)
            self._check(head, p)
            heads[head.name] = np.clip(p, 0, 1).astype(np.float32)
        if self.faults:
            raise BadProbabilities([f"line {line}: {fault}" for line, fault in sorted(self.faults)])
        if not len(self.lines):
            raise BadProbabilities(["the file has a header and no rows"])
        tasks = np.array(self.tasks, dtype=np.int64)
        order = np.lexsort((np.array(self.members), tasks))
        ordered = {head: p[order] for head, p in heads.items()}
        return Probabilities(tasks[order], ordered, name, sha256, self.columns.left_alone)

    def _check(self, head: Head, p: NDArray[Any]) -> None:
        """Note the rows whose probabilities are none."""
        outside = ~((p >= 0) & (p <= 1))  # not a number is outside too
        for row, column in np.argwhere(outside).tolist():
            what = f"{head.name}:{head.classes[column]} is {p[row, column]:g}, which is no probability"
            self.faults.append((self.lines[row], what))
        if head.multiple:
            return
        sums = p.sum(axis=1)
        for row in np.flatnonzero((np.abs(sums - 1) > TOLERANCE) & ~outside.any(axis=1)).tolist():
            what = f"the probabilities of {head.name!r} add up to {sums[row]:g} instead of 1"
            self.faults.append((self.lines[row], what))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
