"""What a cycle learns from: read from the store, kept, and known again."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from backend.snapshot import Snapshot, take
from tasks.schema import parse_label_config
from tasks.tables import Annotation, Task

REVERSED = (
    '<Choice value="benign"/><Choice value="malignant"/>',
    '<Choice value="malignant"/><Choice value="benign"/>',
)


def config(world) -> str:
    return world.store.project(1).label_config


def taken(world, label_config: str | None = None) -> Snapshot:
    return take(world.store, label_config or config(world), 1)


def learnt_from(snapshot: Snapshot) -> str:
    return snapshot.learnt_from(parse_label_config(snapshot.label_config).heads[0])


def test_it_is_read_back_as_it_was(world, tmp_path: Path) -> None:
    world.annotate(3)
    snapshot = taken(world)
    snapshot.save(tmp_path / "snapshot.npz")
    again = Snapshot.load(tmp_path / "snapshot.npz")
    assert again.label_config == config(world) and again.fingerprint() == snapshot.fingerprint()
    for name in ("ids", "pixels", "folds", "groups", "annotations", "updated"):
        np.testing.assert_array_equal(getattr(again, name), getattr(snapshot, name))
    for part in ("targets", "recorded", "adjudicated", "weights"):
        np.testing.assert_array_equal(getattr(again, part)["bom"], getattr(snapshot, part)["bom"])
    assert again.ids[again.adjudicated["bom"]].tolist() == [3]


def test_an_unsure_answer_weighs_less_and_is_learnt_from_anew(world) -> None:
    world.annotate(3)
    sure = taken(world)
    with world.store.begin() as session:
        session.get_one(Annotation, (1, 3)).confidence = 0.5
    unsure = taken(world)
    assert sure.weights["bom"].tolist() == [1.0] * len(sure.ids)
    assert unsure.weights["bom"][2] == np.float32(0.6) and (np.delete(unsure.weights["bom"], 2) == 1).all()
    assert learnt_from(unsure) != learnt_from(sure) and unsure.fingerprint() != sure.fingerprint()


def test_deleted_and_unread_tasks_are_left_out(world) -> None:
    with world.store.begin() as session:
        session.get_one(Task, (1, 5)).deleted_at = 1.0
        session.get_one(Task, (1, 6)).pixels = None
    assert not {5, 6} & set(taken(world).ids.tolist())


def test_classes_that_are_gone_count_no_more_and_count_again(world) -> None:
    world.annotate(3)
    before, other = taken(world), config(world).replace('"malignant"', '"suspicious"')
    assert np.isnan(taken(world, other).targets["bom"][2]).all()
    assert taken(world).fingerprint() == before.fingerprint()


def test_what_a_head_learns_from_is_known_again(world) -> None:
    snapshot = taken(world)
    same = learnt_from(snapshot)
    assert learnt_from(taken(world, config(world).replace(*REVERSED))) == same
    assert learnt_from(taken(world, config(world).replace('required="true"', 'model_weight="3"'))) == same
    longer = replace(snapshot, groups=np.array([*snapshot.groups[:-1], "a group with a long name in the hold-out"]))
    assert learnt_from(longer) == same  # the hold-out is not learnt from
    for part in ("ids", "pixels", "folds", "groups"):
        other = getattr(snapshot, part).copy()
        other[0] = other[1]
        assert learnt_from(replace(snapshot, **{part: other})) != same
    world.annotate(3)
    assert learnt_from(taken(world)) != same


def test_some_tasks_of_it(world) -> None:
    some = taken(world).of(np.array([4, 1]))
    assert some.ids.tolist() == [5, 2] and some.targets["bom"].shape == (2, 2) and len(some.groups) == 2
