"""The review file: tasks by suspicion as CSV for a reviewer's spreadsheet, and what comes back, read whole or refused.

Columns: `task` (Label Studio's number), `image`, `reason`; and per control `<control>_current` (the label that holds),
`_prediction`, `_confidence`, `_suspicion` and, empty for the reviewer's decision, the control's own name. Several
classes of a multiple choice are joined by "|"; NOTHING says that nothing is ticked; an empty cell says nothing at all.
"""

import csv
import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tasks.answers import brief, class_of, in_class_order
from tasks.codec import Result, encode_labels
from tasks.schema import Head, Labels, Schema

NOTHING = "(none)"
MASKS_ALONE = "the label config asks for masks alone, which a spreadsheet cannot hold: review them in Label Studio"
PARTS = ("current", "prediction", "confidence", "suspicion")
_FORMULA = re.compile(r"'*[=+\-@\t\r]")  # how a cell begins that a spreadsheet would calculate, once or more quoted


class BadReview(ValueError):
    """The file cannot be applied; the message names every fault with its line."""

    def __init__(self, faults: Iterable[tuple[int, str]]) -> None:
        self.faults = tuple(sorted(faults))
        super().__init__("\n".join(f"line {line}: {fault}" for line, fault in self.faults))


@dataclass(frozen=True)
class Suspect:
    """One task as it is exported; the mappings are by head, and lack heads of which nothing is known."""

    task: int
    image: str
    current: Labels
    prediction: Labels
    confidence: Mapping[str, float]
    suspicion: Mapping[str, float]
    reason: str


@dataclass(frozen=True)
class Decision:
    """A row with a decision: the decided heads, and the cells that the reviewer saw beside them.

    current: what the file says of the label that held, per decided head. shown: the model's prediction and confidence.
    """

    line: int
    task: int
    decided: Labels
    current: Mapping[str, str]
    shown: Mapping[str, str]


@dataclass(frozen=True)
class Sheet:
    """A file as read. rows: how many it has, decided or not. left_alone: columns that were not used."""

    decisions: tuple[Decision, ...]
    faults: tuple[tuple[int, str], ...]
    rows: int
    left_alone: tuple[str, ...]
    sha256: str


@dataclass(frozen=True)
class Known:
    """What the project holds of a task.

    held: its labels now. own: the reviewer's own last word, its annotation, and what that marks in the image.
    """

    deleted: bool = False
    held: Labels = field(default_factory=dict)
    own: Labels = field(default_factory=dict)
    annotation: int | None = None
    marks: Sequence[Result] = ()


@dataclass(frozen=True)
class Answer:
    """What a decision comes to.

    labels, marks: of the whole annotation. annotation: the one that says it already, if any.
    """

    decision: Decision
    labels: Labels
    annotation: int | None
    marks: Sequence[Result] = ()


def guarded(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula; `plain` undoes it."""
    return f"'{cell}" if _FORMULA.match(cell) else cell


def plain(cell: str) -> str:
    """What `guarded` was given; a cell that was typed without the guard stays as it is."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def columns(heads: Sequence[Head]) -> list[str]:
    """The header. Raises BadReview where a control's name makes two columns one."""
    names = ["task", "image"]
    names += [f"{head.name}_{part}" for head in heads for part in PARTS]
    names += ["reason", *(head.name for head in heads)]
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        names_twice = ", ".join(map(repr, twice))
        raise BadReview([(1, f"a review file would have two columns {names_twice}: rename that control")])
    return names


def lines(heads: Sequence[Head], suspects: Iterable[Suspect]) -> Iterator[list[str]]:
    """The rows of the file, the header first. Raises BadReview as `columns`."""
    yield [guarded(name) for name in columns(heads)]
    for row in suspects:
        cells = [str(row.task), row.image]
        for head in heads:
            cells += [as_cell(row.current, head.name), as_cell(row.prediction, head.name)]
            cells += [_number(row.confidence.get(head.name)), _number(row.suspicion.get(head.name))]
        yield [guarded(cell) for cell in (*cells, row.reason)] + [""] * len(heads)


def as_cell(labels: Labels, head: str) -> str:
    """One head's labels as a cell."""
    return ("|".join(labels[head]) or NOTHING) if head in labels else ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def read(raw: bytes, schema: Schema) -> Sheet:
    """Read a file, separated by commas or semicolons, with or without a byte order mark.

    Rows without a decision are only counted. Faults of rows are collected, those of the file raise BadReview.
    """
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise BadReview([(line, f"byte {error.start} is not UTF-8: save the file as 'CSV UTF-8'")]) from error
    rows = _rows(text)
    _, first = next(rows, (1, []))
    header = [plain(name.strip()) for name in first]
    heads = _decided_heads(header, schema)
    faults: list[tuple[int, str]] = []
    decisions: list[Decision] = []
    seen: dict[int, int] = {}
    count = 0
    for line, cells in rows:
        count += 1
        if any(cell.strip() for cell in cells[len(header) :]):
            faults.append((line, f"{len(cells)} cells where the header has {len(header)}: is a quote missing?"))
            continue
        row = dict(zip(header, (plain(cell.strip()) for cell in cells), strict=False))  # Excel drops empty ends
        chosen = [head for head in heads if row.get(head.name)]
        if not chosen:
            continue
        number = row.get("task", "")
        if not (number.isascii() and number.isdecimal()):
            faults.append((line, f"the column 'task' has {brief(number)}, which is no number of a task"))
            continue
        task = int(number)
        if seen.setdefault(task, line) != line:
            faults.append((line, f"task {task} is decided in line {seen[task]} already"))
            continue
        decided: Labels = {}
        for head in chosen:
            try:
                decided[head.name] = _labels(head, row[head.name])
            except ValueError as error:
                faults.append((line, str(error)))
        current = {head.name: row.get(f"{head.name}_current", "") for head in chosen}
        names = [f"{head.name}_{part}" for head in chosen for part in ("prediction", "confidence")]
        decisions.append(Decision(line, task, decided, current, {name: row[name] for name in names if row.get(name)}))
    known = {*columns(schema.heads)}
    left_alone = tuple(name for name in header if name and name not in known)
    return Sheet(tuple(decisions), tuple(faults), count, left_alone, hashlib.sha256(raw).hexdigest())


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """Each row with the line it begins in; blank ones are none."""
    end = text.find("\n")
    top = text[: end if end >= 0 else None]
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=";" if top.count(";") > top.count(",") else ",", strict=True
    )
    line = 1
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        raise BadReview([(line, f"no valid CSV ({error})")]) from error


def _decided_heads(header: Sequence[str], schema: Schema) -> list[Head]:
    """The heads with a column for decisions. Raises BadReview for what the header lacks."""
    heads = [head for head in schema.heads if head.name in header]
    twice = sorted(name for name, count in Counter(header).items() if count > 1 and name)
    faults = [f"the column {name!r} comes twice" for name in twice]
    needed = ["task", *(f"{head.name}_current" for head in heads)]
    faults += [f"the column {name!r} is missing" for name in needed if name not in header]
    if not heads:
        names = ", ".join(repr(head.name) for head in schema.heads)
        faults.append(f"no column holds decisions; they are called as the controls: {names}")
    if faults:
        raise BadReview([(1, fault) for fault in faults])
    return heads


def _labels(head: Head, text: str) -> tuple[str, ...]:
    """The classes that a cell names. Raises ValueError."""
    whole = class_of(head, text)
    if whole is not None:
        return (whole,)
    if text == NOTHING:
        if head.multiple and not head.required:
            return ()
        raise ValueError(f"{head.name!r} has {NOTHING!r}, but the control asks for an answer")
    found = {part.strip(): class_of(head, part.strip()) for part in (text.split("|") if head.multiple else [text])}
    unknown = [part for part, name in found.items() if name is None]
    if unknown:
        listed = ", ".join(head.classes)
        raise ValueError(f"{', '.join(map(brief, unknown))} is no class of {head.name!r} ({listed})")
    return in_class_order(head, {name for name in found.values() if name})


def answers(sheet: Sheet, schema: Schema, known: Mapping[int, Known]) -> tuple[Answer, ...]:
    """What each decision comes to, checked against the project; raises BadReview with all faults of the file.

    An annotation holds the decided heads, and what its reviewer had said of the others and marked before, whose last
    word it becomes. A multiple choice that may be left empty cannot be left open in Label Studio, as no result says
    "nothing ticked": undecided, it repeats what holds. A decision that the reviewer's last word contains is left as it
    is, so the current label of such a row need not be the file's any more.
    """
    faults, found = list(sheet.faults), []
    for decision in sheet.decisions:
        task = known.get(decision.task)
        if task is None or task.deleted:
            what = "the project has no task" if task is None else "deleted in Label Studio: task"
            faults.append((decision.line, f"{what} {decision.task}"))
            continue
        own = _under(schema, task.own)
        if task.annotation is not None and own | decision.decided == own:
            found.append(Answer(decision, own, task.annotation))
            continue
        labels, wrong = _annotation(schema, decision, own, _under(schema, task.held))
        wrong += _changed(decision, task.held)
        faults += [(decision.line, f"task {decision.task}: {fault}") for fault in wrong]
        found.append(Answer(decision, labels, None, task.marks))
    if faults:
        raise BadReview(faults)
    return tuple(found)


def _annotation(schema: Schema, decision: Decision, own: Labels, held: Labels) -> tuple[Labels, list[str]]:
    """All that the annotation has to say, and what stands against it."""
    labels, faults = own | decision.decided, []
    for head in schema.heads:
        if not head.multiple or head.required or head.name in labels or head.name in decision.current:
            continue
        if head.name in held:
            labels[head.name] = held[head.name]
        else:
            faults.append(f"{head.name!r} would be left empty: decide it too, by its classes or {NOTHING!r}")
    if decision.decided and not encode_labels(schema, labels):
        faults.append("nothing ticked alone is an empty annotation in Label Studio: decide another control too")
    return labels, faults


def _changed(decision: Decision, held: Labels) -> list[str]:
    """A sentence for each decided head whose label is not the one that the reviewer saw."""
    faults = []
    for name, text in decision.current.items():
        now = as_cell(held, name)
        if {part.strip() for part in text.split("|")} != {part.strip() for part in now.split("|")}:
            faults.append(f"the label of {name!r} has changed since the export: {brief(text)} then, {brief(now)} now")
    return faults


def _under(schema: Schema, labels: Labels) -> Labels:
    """What the present label config knows of labels."""
    classes = {head.name: set(head.classes) for head in schema.heads}
    return {name: tuple(said) for name, said in labels.items() if name in classes and set(said) <= classes[name]}
