from fractions import Fraction
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.labels import Settled, settle
from tasks.tables import Annotation


def said(at: int, labels: dict[str, list[str]], by: int = 1, origin: str = "person", **more: Any) -> Annotation:
    """An annotation last changed in second `at`."""
    moment = f"2026-01-01T00:00:{at:02d}.000000+00:00"
    return Annotation(labels=labels, completed_by=by, origin=origin, updated_at=moment, **{"flagged": False, **more})


def test_people_over_imports_over_the_record() -> None:
    current = {"bom": ("benign",), "shape": ("wider",), "margin": ("smooth",)}
    imported = said(1, {"bom": ["malignant"], "shape": ["taller"]}, origin="imported")
    person = said(2, {"bom": ["benign"], "foci": []})
    assert settle([], current) == Settled(current, current)
    record = {"bom": ("malignant",), "shape": ("taller",), "margin": ("smooth",)}
    assert settle([imported], current) == Settled(record, record)
    settled = settle([person, imported], current)
    assert settled.labels == record | {"bom": ("benign",), "foci": ()}
    assert settled.current == record
    assert settled.adjudicated == {"bom", "foci"}


def test_the_majority_of_annotators_holds_and_of_equals_the_latest() -> None:
    words = [said(1, {"bom": ["b"]}, 1), said(2, {"bom": ["m"]}, 2), said(3, {"bom": ["b"]}, 3)]
    assert settle(words, {}).labels == {"bom": ("b",)}
    for order in permutations(words[:2]):
        assert settle(order, {}).labels == {"bom": ("m",)}
    # Who answers twice has one vote: the later.
    assert settle([*words[:2], said(4, {"bom": ["b"]}, 1), said(5, {"bom": ["m"]}, 1)], {}).labels == {"bom": ("m",)}
    assert settle([*words, said(4, {}, 3)], {}).labels == {"bom": ("m",)}


def test_the_sure_outweigh_the_unsure_and_everybody_counts() -> None:
    sure, unsure, never = (said(1, {"bom": ["b"]}, 1, confidence=1.0), said(2, {"bom": ["m"]}, 2, confidence=0.5), 0.0)
    assert settle([unsure], {}).weights == {"bom": 0.6}
    assert settle([sure, unsure], {}) == Settled({"bom": ("b",)}, {}, {"bom": 0.5})
    assert settle([said(3, {"bom": ["m"]}, 3, confidence=never)], {}) == Settled({"bom": ("m",)}, {}, {"bom": 0.2})
    # Two who doubt outweigh one who is sure; who was not asked counts as sure; the latest breaks a tie.
    two = [sure, unsure, said(3, {"bom": ["m"]}, 3, confidence=0.5)]
    assert settle(two, {}) == Settled({"bom": ("m",)}, {}, {"bom": 0.4})
    assert settle([said(1, {"bom": ["b"]}, 1), unsure], {}).labels == {"bom": ("b",)}
    five = [said(9, {"bom": ["b"]}, 9), *(said(at, {"bom": ["m"]}, at, confidence=0.0) for at in range(1, 6))]
    assert settle(five, {}).labels == {"bom": ("b",)}


def test_a_flag_holds_the_task_back_until_its_annotator_takes_it_away() -> None:
    flagged = said(2, {"bom": ["m"]}, 1, flagged=True)
    current = {"bom": ("b",)}
    queued = said(3, {"bom": ["b"]}, 2, parent_prediction=7)
    assert settle([flagged, queued], current) == Settled({}, current, flagged=True)
    assert settle([flagged, said(3, {"bom": ["m"]}, 1)], current).labels == {"bom": ("m",)}
    gone = said(2, {"bom": ["m"]}, 1, flagged=True, deleted_at=1.0)
    assert settle([gone], current) == Settled(current, current)


def test_an_expert_decides_alone_what_was_flagged() -> None:
    current = {"bom": ("b",)}
    before = [said(1, {"bom": ["b"]}, 1), said(2, {"bom": ["b"]}, 2), said(3, {"bom": ["b"]}, 3, flagged=True)]
    expert = said(4, {"bom": ["m"]}, 4)
    for order in permutations([*before, expert]):
        assert settle(order, current) == Settled({"bom": ("m",)}, current, {"bom": 1.0})
    # An answer from before the flag decides nothing, nor does one from the queue, and an expert may pass it on.
    assert settle([said(2, {"bom": ["m"]}, 4), before[2]], current).flagged
    assert settle([*before, said(4, {"bom": ["m"]}, 4, flagged=True)], current).flagged


def test_skipped_empty_machine_made_and_deleted_ones_say_nothing() -> None:
    rows = [said(place, {"bom": ["m"]}, place, origin) for place, origin in enumerate(["skipped", "empty", "machine"])]
    rows.append(said(5, {"bom": ["m"]}, 5, deleted_at=1.0))
    rows.append(said(6, {"bom": ["m"]}, 6, "imported", deleted_at=1.0))
    assert settle(rows, {"bom": ("b",)}) == Settled({"bom": ("b",)}, {"bom": ("b",)})


LABELS = st.dictionaries(st.sampled_from("xy"), st.lists(st.sampled_from("abc"), max_size=1), max_size=2)
ROWS = st.lists(
    st.tuples(
        LABELS,
        st.sampled_from([1, 2, 3, 4]),
        st.sampled_from(["person", "person", "person", "imported", "machine", "skipped", "empty"]),
        st.sampled_from([False] * 5 + [True]),
        st.sampled_from([None, None, None, 1.0]),
        st.sampled_from([None, 7]),
        st.sampled_from([None, None, 0.0, 0.25, 0.5, 1.0]),
    ),
    max_size=8,
)


def fifths(row: Annotation) -> Fraction:
    """A vote in fifths of a sure one: 1 for an annotator who is not sure at all, 5 for one who is or was not asked."""
    return Fraction(5) if row.confidence is None else 1 + 4 * Fraction(row.confidence)


@given(rows=ROWS, current=LABELS, shuffled=st.randoms(use_true_random=False))
def test_settle_is_what_it_says(rows: list[Any], current: dict[str, list[str]], shuffled: Any) -> None:
    annotations = [
        said(at, labels, by, origin, flagged=flagged, deleted_at=gone, parent_prediction=parent, confidence=sure)
        for at, (labels, by, origin, flagged, gone, parent, sure) in enumerate(rows)
    ]
    living = [row for row in annotations if row.deleted_at is None]
    record = {head: tuple(names) for head, names in current.items()}
    for row in living:  # oldest first
        if row.origin == "imported":
            record.update({head: tuple(names) for head, names in row.labels.items()})
    words = []
    for user in (1, 2, 3, 4):
        own = [row for row in living if row.origin == "person" and row.completed_by == user]
        words += own[-1:]
    flags = [row.updated_at for row in words if row.flagged]
    if flags:
        words = [row for row in words if row.updated_at > max(flags) and row.parent_prediction is None]
    expected = Settled({}, record, flagged=True)
    if words or not flags:
        decided, weights = {}, {}
        for head in ("x", "y"):
            answers = sorted(
                (row.updated_at, tuple(row.labels[head]), fifths(row)) for row in words if head in row.labels
            )
            sums = {answer: sum(vote for _, one, vote in answers if one == answer) for _, answer, _ in answers}
            for _, answer, _ in answers:  # the last of the heaviest stays
                if sums[answer] == max(sums.values()):
                    decided[head] = answer
                    weights[head] = pytest.approx(float(sums[answer] / 5 / len(answers)), abs=1e-6)
        expected = Settled({**record, **decided}, record, weights)
    shuffled.shuffle(annotations)
    assert settle(annotations, {head: tuple(names) for head, names in current.items()}) == expected
