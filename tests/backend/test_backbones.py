"""Which backbones serve a cycle, by what has changed since they were made."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backend import backbones
from backend.learning.config import LearningConfig
from backend.registry import Registry, save_json
from backend.snapshot import Snapshot
from tasks.schema import Head, parse_label_config

CONFIG = LearningConfig(backbone="test_resnet", weights="scratch", folds=2)
LABELS = """<View><Image name="image" value="$image"/>
<Choices name="bom" toName="image" model_weight="0.9"><Choice value="benign"/><Choice value="malignant"/></Choices>
<Choices name="shape" toName="image" model_weight="0.1"><Choice value="wider"/><Choice value="taller"/></Choices>
</View>"""
COUNT = 40


def heads(config: str = LABELS) -> tuple[Head, ...]:
    return parse_label_config(config).heads


def taken(config: str = LABELS) -> Snapshot:
    """40 tasks of 20 patients, all labelled but for the hold-out's last four; even tasks have class 0."""
    rows = np.arange(COUNT)
    folds = (rows // 2 % 2).astype(np.int8)
    folds[-4:] = -1
    targets = {head.name: np.eye(2, dtype=np.float32)[rows % 2] for head in heads(config)}
    return Snapshot(
        ids=rows + 1,
        pixels=np.array([f"digest{row}" for row in rows]),
        folds=folds,
        groups=np.array([f"patient{row // 2}" for row in rows]),
        targets=targets,
        recorded=targets,
        adjudicated={head: np.zeros(COUNT, dtype=bool) for head in targets},
        weights={head: np.ones(COUNT, dtype=np.float32) for head in targets},
        drawn=np.zeros(COUNT, dtype=bool),
        annotations=np.array([], dtype=np.int64),
        updated=np.array([], dtype=np.str_),
        label_config=config,
    )


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """With the backbones of version 1, one a fold."""
    registry = Registry(tmp_path)
    make(registry, 1, taken(), CONFIG)
    return registry


def make(registry: Registry, number: int, of: Snapshot, config: LearningConfig, *, labelled: bool = True) -> None:
    folder = registry.backbones(1, number)
    of.save(folder / "snapshot.npz")
    save_json(folder / "made.json", backbones._made_for(heads(of.label_config) if labelled else (), config))


def choose(registry: Registry, now: Snapshot, config: LearningConfig = CONFIG, number: int = 7) -> int:
    return backbones.choose(registry, 1, number, now, heads(now.label_config), config)


def test_nothing_new_keeps_them_and_other_settings_do_not(registry: Registry) -> None:
    assert choose(registry, taken()) == 1
    assert choose(registry, taken(), replace(CONFIG, image_size=64)) == 7
    assert choose(registry, taken(), replace(CONFIG, mode="full")) == 7


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        (('value="wider"', 'value="broader"'), True),  # a tenth of the loss
        (('name="shape"', 'name="form"'), True),
        (('value="benign"', 'value="harmless"'), False),  # nine tenths
        (('"0.9"', '"0.3"'), True),  # 0.75 of the loss instead of 0.9
        (('model_weight="0.9"', 'model_weight="0.0"'), False),
        (
            (
                '<Choice value="benign"/><Choice value="malignant"/>',
                '<Choice value="malignant"/><Choice value="benign"/>',
            ),
            True,
        ),
    ],
)
def test_only_what_carries_half_of_the_loss_is_worth_new_ones(
    registry: Registry, change: tuple[str, str], kept: bool
) -> None:
    now = taken(LABELS.replace(*change))
    if change[1].startswith("<Choice"):
        now.targets["bom"][:] = now.targets["bom"][:, ::-1]  # the same labels in another order
    assert choose(registry, now) == (1 if kept else 7)


def test_a_head_that_came_back_finds_the_backbones_made_for_it(registry: Registry) -> None:
    other = LABELS.replace('name="bom"', 'name="other"')
    make(registry, 3, taken(other), CONFIG)
    assert choose(registry, taken()) == 1
    assert choose(registry, taken(other)) == 3


@pytest.mark.parametrize(("withdrawn", "kept"), [(8, True), (9, False)])
def test_a_quarter_of_the_labels_is(registry: Registry, withdrawn: int, kept: bool) -> None:
    now = taken()
    now.targets["shape"][:withdrawn] = np.nan
    assert choose(registry, now) == (1 if kept else 7)


@pytest.mark.parametrize(
    ("head", "corrected", "kept"),
    [("shape", 8, True), ("bom", 1, True), ("bom", 3, False)],
)
def test_a_twentieth_of_the_labels_corrected_is_by_their_share_of_the_loss(
    registry: Registry, head: str, corrected: int, kept: bool
) -> None:
    now = taken()
    now.targets[head][:corrected] = now.targets[head][:corrected, ::-1]  # of 36: 0.9 x 3 / 36 is 0.075
    now.targets[head][-4:] = now.targets[head][-4:, ::-1]  # nothing learnt these
    assert choose(registry, now) == (1 if kept else 7)
    assert choose(registry, now, replace(CONFIG, corrected_share=0.5)) == 1


def test_images_they_were_trained_on_must_not_change_their_fold(registry: Registry) -> None:
    patient = taken()
    patient.groups[:] = np.where(patient.ids == 1, "another patient", patient.groups)
    patient.folds[0] = 1
    assert choose(registry, patient) == 7
    imported_again = taken()
    imported_again.ids[:] += 100  # deleted, and imported again: the groups tell
    assert choose(registry, replace(imported_again, folds=1 - imported_again.folds)) == 7


def test_tasks_that_came_later_do_not_matter(registry: Registry) -> None:
    now = taken()
    unlabelled = {head: np.full((COUNT, 2), np.nan, dtype=np.float32) for head in now.targets}
    later = replace(now, ids=now.ids + COUNT, pixels=np.char.add(now.pixels, "b"), targets=unlabelled)
    both = replace(
        now,
        **{
            name: np.concatenate([getattr(now, name), getattr(later, name)])
            for name in ("ids", "pixels", "folds", "groups")
        },
        targets={head: np.concatenate([now.targets[head], later.targets[head]]) for head in now.targets},
    )
    assert choose(registry, both) == 1


def test_a_backbone_that_saw_no_label_serves_any_head(tmp_path: Path) -> None:
    registry, pretrained = Registry(tmp_path), replace(CONFIG, weights="some.safetensors")
    make(registry, 1, taken(), pretrained, labelled=False)
    assert choose(registry, taken(), pretrained) == 1


def test_a_random_one_serves_until_there_is_something_to_learn(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    make(registry, 1, taken(), CONFIG, labelled=False)
    assert backbones.choose(registry, 1, 7, taken(), (), CONFIG) == 1
    assert choose(registry, taken()) == 7
