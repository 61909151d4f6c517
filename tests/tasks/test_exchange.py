"""Review files: written so that no spreadsheet calculates, read back the same, or refused with every fault's line."""

import csv
import io

import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tasks.exchange import NOTHING, BadReview, Known, Sheet, Suspect, answers, columns, guarded, lines, plain, read
from tasks.schema import Labels, parse_label_config

SCHEMA = parse_label_config("""<View><Image name="image" value="$image"/>
<Choices name="bom" toName="image" model_current="$bom" required="true">
<Choice value="benign" alias="=b"/><Choice value="malignant"/></Choices>
<Choices name="foci" toName="image" choice="multiple"><Choice value="+rim"/><Choice value="dots"/></Choices>
<Rating name="tirads" toName="image" maxRating="5"/></View>""")
FULL = {"bom": ("=b",), "foci": ("+rim", "dots"), "tirads": ("4",)}
HELD: dict[int, Known] = {1: Known(held=FULL), 2: Known(held={"bom": ("malignant",)}), 3: Known(deleted=True)}


def file_of(*rows: Suspect) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out).writerows(lines(SCHEMA.heads, rows))
    return out.getvalue().encode("utf-8-sig")


def suspect(task: int, current: Labels, reason: str = "=SUM(A1)") -> Suspect:
    return Suspect(task, "/a.png", current, {"bom": ("malignant",)}, {"bom": 0.91}, {"bom": 0.875}, reason)


def decided(raw: bytes, separator: str = ",", **choices: str) -> bytes:
    """The file with these decisions in its first row, as a spreadsheet writes it."""
    table = pd.read_csv(io.BytesIO(raw), dtype=str, keep_default_na=False)
    for head, text in choices.items():
        table.loc[0, head] = text
    written: str = table.to_csv(index=False, sep=separator)
    return written.encode()


def faults(sheet: Sheet, known: dict[int, Known] = HELD) -> list[str]:
    with pytest.raises(BadReview) as caught:
        answers(sheet, SCHEMA, known)
    return str(caught.value).split("\n")


@given(st.text())
@example("=1+1")
@example("'=1+1")
@example("''@x")
@example("'quoted")
@example("-")
def test_no_cell_is_a_formula_and_every_cell_comes_back(cell: str) -> None:
    safe = guarded(cell)
    assert not safe.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert plain(safe) == cell


def test_what_is_written() -> None:
    table = pd.read_csv(io.BytesIO(file_of(suspect(1, FULL))), dtype=str, keep_default_na=False)
    assert list(table.columns) == columns(SCHEMA.heads)
    expected = {"task": "1", "image": "/a.png", "bom_current": "'=b", "bom_prediction": "malignant"}
    expected |= {"bom_confidence": "0.9100", "bom_suspicion": "0.8750", "foci_current": "'+rim|dots"}
    expected |= {"tirads_current": "4", "tirads_suspicion": "", "reason": "'=SUM(A1)", "bom": "", "tirads": ""}
    assert table.iloc[0][list(expected)].to_dict() == expected


@pytest.mark.parametrize("separator", [",", ";"])
def test_a_decision_comes_back(separator: str) -> None:
    raw = decided(file_of(suspect(1, FULL), suspect(2, {})), separator, bom="malignant", foci=NOTHING)
    sheet = read(b"\xef\xbb\xbf" + raw, SCHEMA)
    [row] = sheet.decisions
    assert (sheet.rows, sheet.faults, row.line, row.task) == (2, (), 2, 1)
    assert row.decided == {"bom": ("malignant",), "foci": ()}
    assert row.current == {"bom": "=b", "foci": "+rim|dots"}
    assert row.shown == {"bom_prediction": "malignant", "bom_confidence": "0.9100"}
    [answer] = answers(sheet, SCHEMA, HELD)
    assert (answer.labels, answer.annotation) == ({"bom": ("malignant",), "foci": ()}, None)


def test_classes_may_be_written_as_they_are_shown_and_in_any_order() -> None:
    sheet = read(decided(file_of(suspect(1, FULL)), bom="benign", foci=" dots | +rim ", tirads="5"), SCHEMA)
    assert sheet.decisions[0].decided == {"bom": ("=b",), "foci": ("+rim", "dots"), "tirads": ("5",)}


def test_what_is_not_decided_stays_open_but_for_a_choice_that_cannot() -> None:
    raw = decided(file_of(suspect(1, FULL)), bom="malignant")
    [answer] = answers(read(raw, SCHEMA), SCHEMA, HELD)
    assert answer.labels == {"bom": ("malignant",), "foci": ("+rim", "dots")}
    own: Labels = {"foci": ("dots",), "tirads": ("2",)}
    known = {1: Known(held=FULL, own=own, annotation=7)}
    [answer] = answers(read(raw, SCHEMA), SCHEMA, known)
    assert (answer.labels, answer.annotation) == (own | {"bom": ("malignant",)}, None)
    known = {1: Known(held={}, own=answer.labels, annotation=8)}  # the current label need not be the file's any more
    [answer] = answers(read(raw, SCHEMA), SCHEMA, known)
    assert answer.annotation == 8


def test_every_fault_is_named_with_its_line() -> None:
    header = "task,image,bom_current,bom,foci_current,foci,tirads_current,tirads"
    rows = [
        '1,"two\nlines",=b,malignnat,,,,',
        "1,x,=b,malignant,,,,",
        "99,x,,malignant,,dots,,",
        "3,x,,malignant,,dots,,",
        "2,x,=b,malignant,,dots,,6",
        "one,x,=b,malignant,,,,",
        "1,x,=b,malignant,,,,,more",
        "4,x,,,,(none),,",
        "5,x,,(none),,dots,,",
        "6,x,,malignant,,,,",
    ]
    known = HELD | {number: Known() for number in (4, 5, 6)}
    told = faults(read("\n".join([header, *rows]).encode(), SCHEMA), known)
    expected = [
        (2, "'malignnat' is no class of 'bom' (=b, malignant)"),
        (4, "task 1 is decided in line 2 already"),
        (5, "the project has no task 99"),
        (6, "deleted in Label Studio: task 3"),
        (7, "'6' is no class of 'tirads'"),
        (7, "task 2: the label of 'bom' has changed since the export: '=b' then, 'malignant' now"),
        (8, "the column 'task' has 'one', which is no number of a task"),
        (9, "9 cells where the header has 8"),
        (10, "task 4: nothing ticked alone is an empty annotation"),
        (11, "'bom' has '(none)', but the control asks for an answer"),
        (12, "task 6: 'foci' would be left empty: decide it too, by its classes or '(none)'"),
    ]
    assert len(told) == len(expected)
    for sentence, (line, fault) in zip(told, expected, strict=True):
        assert sentence.startswith(f"line {line}: {fault}")


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (b"task,bom\n1,benign\n", "line 1: the column 'bom_current' is missing"),
        (b"bom_current,bom\n", "line 1: the column 'task' is missing"),
        (b"task,image\n1,x\n", "line 1: no column holds decisions; they are called as the controls: 'bom', "),
        (b"task,bom_current,bom,bom\n", "line 1: the column 'bom' comes twice"),
        (b"task,bom_current,bom\n1,gutartig,b\xf6se\n", "line 2: byte 33 is not UTF-8: save the file as 'CSV UTF-8'"),
        (b'task,bom_current,bom\n1,"=b,malignant\n', "line 2: no valid CSV"),
        (b"", "line 1: the column 'task' is missing"),
    ],
)
def test_a_file_that_is_none(raw: bytes, sentence: str) -> None:
    with pytest.raises(BadReview) as caught:
        read(raw, SCHEMA)
    assert sentence in str(caught.value)


def test_columns_that_are_not_used_are_named() -> None:
    raw = b"task,bom_current,bom,remark\n1,=b,malignant,hm\n"
    assert read(raw, SCHEMA).left_alone == ("remark",)


def test_a_control_called_as_another_column_is_refused() -> None:
    schema = parse_label_config("""<View><Image name="image" value="$image"/>
    <Choices name="reason" toName="image"><Choice value="a"/><Choice value="b"/></Choices></View>""")
    with pytest.raises(BadReview, match="two columns 'reason': rename that control"):
        columns(schema.heads)
