"""What a reconcile makes of masks: whose they are, what the ledger says of them, and the masks of any moment."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from tasks import audit, ledger
from tasks.marks import paint
from tasks.rle import encode_mask
from tasks.schema import parse_label_config
from tasks.store import Store
from tasks.tables import Annotation, Entry, Project, Published
from tasks.takeover import Changes, apply_page

CONFIG = """<View><Image name="image" value="$image"/>
<BrushLabels name="mask" toName="image"><Label value="nucleus"/><Label value="cell"/></BrushLabels>
<RectangleLabels name="look" toName="image" model_role="look"><Label value="look here"/></RectangleLabels>
<Choices name="scope" toName="image" model_role="scope">
  <Choice value="Rectangles" alias="patches"/><Choice value="All" alias="image"/></Choices>
<Choices name="flag" toName="image" choice="multiple" model_role="flag"><Choice value="expert"/></Choices>
<TextArea name="why" toName="image" model_role="why" editable="false" maxSubmissions="1"/></View>"""
BOTH = CONFIG.replace(
    "</View>",
    '<Choices name="foci" toName="image" choice="multiple"><Choice value="rim"/><Choice value="no"/></Choices></View>',
)
H, W = 8, 12
SIZE = {"original_width": W, "original_height": H}
OURS = {"origin": "prediction"}
WHY = {"id": "why", "from_name": "why", "type": "textarea", "value": {"text": ["Look."]}} | OURS


def brush(*pixels: tuple[int, int], label: str = "nucleus", **more: Any) -> dict[str, Any]:
    mask = np.zeros((H, W), dtype=np.uint8)
    for pixel in pixels:
        mask[pixel] = 255
    value = {"format": "rle", "rle": encode_mask(mask), "brushlabels": [label]}
    return {"id": "m", "from_name": "mask", "type": "brushlabels", "value": value} | SIZE | more


def box(row: int, column: int, height: int, width: int, **more: Any) -> dict[str, Any]:
    value = {"x": 100 * column / W, "y": 100 * row / H, "width": 100 * width / W, "height": 100 * height / H}
    value |= {"rotation": 0, "rectanglelabels": ["look here"]}
    return {"id": "b", "from_name": "look", "type": "rectanglelabels", "value": value} | SIZE | more


def choice(name: str, answer: str) -> dict[str, Any]:
    return {"id": name, "from_name": name, "type": "choices", "value": {"choices": [answer]}}


def task(number: int, at: int, *annotations: dict[str, Any]) -> dict[str, Any]:
    about = {"is_labeled": False, "total_annotations": len(annotations), "cancelled_annotations": 0}
    data = {"image": f"{number}.png"}
    when = f"2026-01-01T00:{at // 60:02d}:{at % 60:02d}Z"
    return about | {"id": number, "data": data, "annotations": annotations, "updated_at": when, "updated_by": []}


def said(number: int, at: int, *result: dict[str, Any], user: int | None = 4, **more: Any) -> dict[str, Any]:
    when = f"2026-01-01T00:{at // 60:02d}:{at % 60:02d}Z"
    about = {"id": number, "result": list(result), "created_at": "2026-01-01T00:00:00Z", "updated_at": when}
    about |= {"completed_by": user or 4, "updated_by": user, "lead_time": 12.4, "was_cancelled": False}
    return about | more


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.open(f"sqlite:///{tmp_path / 'store.db'}")
    configure(store, CONFIG)
    return store


def configure(store: Store, config: str) -> None:
    store.register_project(1, config)
    with store.begin() as session:
        session.get_one(Project, 1).label_config = config
        ledger.append(session, 1, "configured", {"label_config": config})


def take(store: Store, *rows: dict[str, Any], config: str = CONFIG, full: bool = False) -> None:
    page = [json.loads(json.dumps(row)) for row in rows]
    with store.begin() as session:
        apply_page(session, 1, parse_label_config(config), page, Changes(full=full))


def annotation(store: Store, number: int) -> Annotation:
    with store.begin() as session:
        return session.get_one(Annotation, (1, number))


def entries(store: Store) -> list[Entry]:
    with store.begin() as session:
        return [entry for entry in ledger.chain(session, 1) if entry.event in ("created", "changed")]


@pytest.mark.parametrize(
    ("result", "origin"),
    [
        ([], "empty"),
        ([WHY, box(0, 0, 2, 2, **OURS), box(4, 4, 2, 2, **OURS)], "empty"),
        ([WHY, box(0, 0, 2, 2, **OURS), choice("scope", "patches")], "person"),
        ([WHY, box(0, 0, 2, 2)], "person"),
        ([choice("scope", "image")], "person"),
        ([brush((1, 1), **OURS)], "person"),
        ([choice("flag", "expert")], "person"),
    ],
)
def test_who_marks_something_or_says_what_was_reviewed_is_heard(store: Store, result: Any, origin: str) -> None:
    for config in (CONFIG, BOTH):
        take(store, task(1, 1, said(1, 1, *result)), config=config, full=True)
        assert annotation(store, 1).origin == origin
    # In the project with both kinds, nothing ticked is an answer only where anything was answered.
    assert annotation(store, 1).labels == ({} if origin == "empty" else {"foci": []})
    for number, (other, more) in enumerate({"imported": {}, "machine": {"parent_prediction": 7}}.items(), 2):
        take(store, task(1, number, said(number, number, *result, user=None, **more)))
        assert annotation(store, number).origin == ("empty" if origin == "empty" else other)


def test_masks_that_changed_count_as_new_and_those_that_did_not_stay_learnt(store: Store) -> None:
    first = [brush((1, 1)), choice("scope", "image")]

    def learnt_after(at: int, *result: dict[str, Any]) -> bool:
        with store.begin() as session:
            session.get_one(Annotation, (1, 1)).trained_in = 3
        take(store, task(1, at, said(1, at, *result)))
        return annotation(store, 1).trained_in == 3

    take(store, task(1, 1, said(1, 1, *first)))
    assert learnt_after(2, *first)
    assert learnt_after(3, *first, WHY)
    assert not learnt_after(4, brush((1, 1), (2, 2)), first[1])
    assert not learnt_after(5, *first, box(0, 0, 2, 2))
    assert not learnt_after(6, brush((1, 1), label="cell"), first[1], box(0, 0, 2, 2))
    assert learnt_after(7, brush((1, 1), label="cell"), first[1], box(0, 0, 2, 2))
    assert not learnt_after(8, brush((1, 1), label="cell"), choice("scope", "patches"), box(0, 0, 2, 2))


SHOWN = [
    brush((1, 1), (1, 2), (5, 9), score=0.8),
    brush((5, 10), label="cell", score=0.7),
    box(0, 0, 4, 4, score=0.9),
    WHY,
]
CARRIED = [item | OURS for item in SHOWN]


@pytest.mark.parametrize(
    ("result", "action"),
    [
        ([*CARRIED, choice("scope", "patches")], "confirmed"),
        ([*CARRIED, choice("scope", "image")], "confirmed"),
        # Drawn anew, the same inside the rectangle; outside of it the annotator did not look.
        ([brush((1, 2), (1, 1), id="x"), CARRIED[2], choice("scope", "patches")], "confirmed"),
        ([brush((1, 2), (1, 1), id="x"), CARRIED[2], choice("scope", "image")], "corrected"),
        ([brush((1, 2)), brush((1, 1)), brush((5, 9)), CARRIED[1], choice("scope", "image")], "confirmed"),
        ([brush((1, 1), (1, 2), (5, 9)), brush((5, 10)), choice("scope", "image")], "corrected"),
        ([CARRIED[2], choice("scope", "patches")], "corrected"),
        ([choice("scope", "image")], "corrected"),
        ([brush((1, 1), original_width=99), CARRIED[2]], "corrected"),
        ([*CARRIED, choice("scope", "image"), choice("flag", "expert")], "flagged"),
        ([CARRIED[2], WHY], "empty"),
    ],
)
def test_masks_are_confirmed_where_they_are_as_shown_inside_what_was_reviewed(
    store: Store, result: Any, action: str
) -> None:
    with store.begin() as session:
        more = {"rank": 0, "kind": "ranked", "why": "", "shown": SHOWN, "prediction_id": 70, "at": 0.0}
        session.add(Published(project_id=1, version=2, task_id=1, **more))
    take(store, task(1, 1, said(1, 1, *result, parent_prediction=70)))
    (entry,) = entries(store)
    assert entry.body["action"] == action
    assert entry.body["marks"] == [item for item in result if item["from_name"] not in ("why", "flag")]
    # Without a suggestion nothing is confirmed or corrected; an image beyond all sense is not unpacked.
    take(store, task(2, 2, said(2, 2, *result)))
    assert entries(store)[1].body["action"] == ("labelled" if action in ("confirmed", "corrected") else action)
    huge = [item | {"original_width": 10**9, "original_height": 10**9} for item in result]
    take(store, task(3, 3, said(3, 3, *huge, choice("scope", "image"), parent_prediction=70)))
    assert entries(store)[2].body["action"] in ("confirmed", "corrected", "flagged")


def test_labels_and_masks_are_judged_together() -> None:
    before, same, other = {"bom": ["b"]}, {"bom": ["b"]}, {"bom": ["m"]}
    for after, masks, expected in [
        (same, None, "confirmed"),
        (same, "corrected", "corrected"),
        (other, "confirmed", "corrected"),
        ({}, "confirmed", "confirmed"),
        ({}, "labelled", "labelled"),
        (same, "labelled", "confirmed"),
    ]:
        assert ledger.action("person", False, before, after, masks) == expected


def result(rng: random.Random) -> list[dict[str, Any]]:
    pixels = [(rng.randrange(H), rng.randrange(W)) for _ in range(rng.randrange(4))]
    found = [brush(*pixels, label=rng.choice(["nucleus", "cell"]))] if pixels else []
    found += [box(rng.randrange(6), rng.randrange(6), 2, 3, **rng.choice([OURS, {}])) for _ in range(rng.randrange(2))]
    found += [choice("scope", rng.choice(["patches", "image"]))] if rng.random() < 0.6 else []
    found += [choice("flag", "expert")] if rng.random() < 0.1 else []
    return [*found, WHY]


@pytest.mark.parametrize("seed", range(6))
def test_the_masks_of_every_moment_come_back(store: Store, seed: int) -> None:
    rng = random.Random(seed)
    there: dict[int, dict[int, dict[str, Any]]] = {1: {}, 2: {}, 3: {}}
    moments = {}
    config, schema = CONFIG, parse_label_config(CONFIG)
    for at in range(1, 40):
        number = rng.randrange(1, 4)
        said_here = there[number]
        if said_here and rng.random() < 0.2:
            del said_here[rng.choice(list(said_here))]
        else:
            old = rng.choice(list(said_here)) if said_here and rng.random() < 0.4 else None
            user = rng.choice([4, 5, None])
            said_here[old or at] = said(old or at, at, *result(rng), user=said_here[old]["updated_by"] if old else user)
        if at == 20:  # both lose their roles, so that `scope` is learnt as a label, and get them back
            config = CONFIG.replace(' model_role="look"', "").replace(' model_role="scope"', "")
        config = CONFIG if at == 30 else config
        if at in (20, 30):
            configure(store, config)
        rows = [task(row, at, *annotations.values()) for row, annotations in there.items()]
        take(store, *rows, config=config, full=at in (20, 30))
        with store.snapshot() as session:
            last = session.scalars(select(Entry.at).order_by(Entry.seq.desc()).limit(1)).one()
            stored = audit.stored(session, 1)
            rows_here = session.scalars(select(Annotation).where(Annotation.deleted_at.is_(None))).all()
            replayed = audit.replay(ledger.chain(session, 1), last)
            assert list(replayed.lines()) == list(stored.lines())
            assert audit.differences(replayed, stored) == []
        schema = parse_label_config(config)
        painted = {n: paint(schema, [row for row in rows_here if row.task_id == n], H, W).masks for n in there}
        moments[last] = (schema, list(replayed.lines()), painted)
    with store.snapshot() as session:
        chain = list(ledger.chain(session, 1))
    for at_moment, (schema, lines, painted) in moments.items():
        found = audit.replay(chain, at_moment)
        assert list(found.lines()) == lines
        for number, masks in painted.items():
            here = [row for row in found.annotations.values() if row.task_id == number]
            np.testing.assert_array_equal(paint(schema, here, H, W).masks, masks)
    assert any("marks" in line for _, lines, _ in moments.values() for line in lines)


def test_masks_that_were_swapped_in_the_store_are_found_and_old_ledgers_are_believed(store: Store) -> None:
    take(store, task(1, 1, said(1, 1, brush((1, 1)))), task(2, 1, said(2, 1, brush((1, 1)))))
    with store.begin() as session:
        session.get_one(Annotation, (1, 1)).result = [brush((2, 2))]
        # As it was written before the ledger kept masks.
        body = {key: value for key, value in entries(store)[1].body.items() if key != "marks"}
        ledger.append(session, 1, "changed", body, task_id=2, annotation_id=2)
    with store.snapshot() as session:
        replayed = audit.replay(ledger.chain(session, 1))
        found = audit.differences(replayed, audit.stored(session, 1))
        assert ledger.verify(session, 1) == []
    assert found == ["task 1: the store holds other masks than the ledger"]
    assert [json.loads(line).get("marks") is not None for line in replayed.lines()] == [True, False]


def test_people_read_how_much_was_marked_not_its_numbers(store: Store) -> None:
    with store.begin() as session:
        more = {"rank": 0, "kind": "ranked", "why": "", "shown": SHOWN, "prediction_id": 70, "at": 0.0}
        session.add(Published(project_id=1, version=2, task_id=1, **more))
    regions = [brush((1, 1)), brush((2, 2)), brush((5, 5), label="cell"), box(0, 0, 4, 4), choice("scope", "patches")]
    take(store, task(1, 1, said(1, 1, *regions, WHY, parent_prediction=70)))
    (row,) = audit.rows(entries(store)[0])
    cells = dict(zip(audit.COLUMNS, audit.cells(row), strict=True))
    assert cells["to"] == "look: 1 rectangle; mask: nucleus 2 regions|cell 1 region; scope: patches"
    assert cells["shown"] == "look: 1 rectangle; mask: nucleus 1 region, cell 1 region"
    assert max(map(len, cells.values())) < 100
