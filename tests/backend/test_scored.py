"""What a version says, kept and read back, added to, and read under another label config."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backend import scored
from backend.registry import load_arrays, save_arrays
from backend.scored import Scored, score
from tasks.ranking.hybrid import Weights
from tasks.schema import Head, parse_label_config

CONFIG = """<View><Image name="image" value="$image"/>
<Choices name="bom" toName="image" model_weight="0.8"><Choice value="benign"/><Choice value="malignant"/></Choices>
<Choices name="margin" toName="image" model_weight="0.2"><Choice value="smooth"/><Choice value="ill-defined"/>
<Choice value="irregular"/></Choices></View>"""


def heads(config: str = CONFIG) -> tuple[Head, ...]:
    return parse_label_config(config).heads


def made(ids: list[int], seed: int, config: str = CONFIG) -> Scored:
    """Two members per head, from random logits."""
    rng = np.random.default_rng(seed)
    members, recorded = {}, {}
    for head in heads(config):
        raw = np.exp(rng.normal(size=(2, len(ids), len(head.classes))))
        members[head.name] = (raw / raw.sum(axis=2, keepdims=True)).astype(np.float32)
        recorded[head.name] = np.eye(len(head.classes), dtype=np.float32)[
            rng.integers(len(head.classes), size=len(ids))
        ]
    blocks = [(np.arange(len(ids)), members)]
    digests = np.array([f"digest{task}-{seed}" for task in ids])
    return score(np.array(ids), digests, heads(config), blocks, recorded, "entropy")


def assert_same(a: Scored, b: Scored) -> None:
    assert a.ids.tolist() == b.ids.tolist() and a.pixels.tolist() == b.pixels.tolist() and a.answers == b.answers
    assert a.probabilities.keys() == b.probabilities.keys()
    for head, p in a.probabilities.items():
        np.testing.assert_array_equal(p, b.probabilities[head])
    assert (a.scores is None) == (b.scores is None)
    for name, value in vars(a.scores or object).items() if a.scores else ():
        np.testing.assert_array_equal(value, getattr(b.scores, name))


def test_scores_of_an_earlier_release_are_read(tmp_path: Path) -> None:
    now = made([1, 2, 3], seed=0)
    now.save(tmp_path / "now.npz")
    arrays = load_arrays(tmp_path / "now.npz")
    save_arrays(tmp_path / "then.npz", {name: a for name, a in arrays.items() if name != "s:head_doubt"})
    then = Scored.load(tmp_path / "then.npz").scores
    assert now.scores is not None and then is not None
    np.testing.assert_array_equal(then.doubt("bom"), now.scores.head_disagreement[:, 0])
    np.testing.assert_array_equal(then.disagreement, now.scores.disagreement)


def test_a_label_that_only_the_record_contradicts_says_so() -> None:
    """Three tasks recorded benign: the image says so too, the image says malignant, and nothing speaks against it."""
    members = {"bom": np.array([[[0.8, 0.2], [0.1, 0.9], [0.9, 0.1]]], dtype=np.float32)}
    recorded = {"bom": np.eye(2, dtype=np.float32)[[0, 0, 0]]}
    judged = {"bom": np.array([[0.1, 0.9], [0.1, 0.9], [0.9, 0.1]], dtype=np.float32)}
    digests, blocks = np.array(["a", "b", "c"]), [(np.arange(3), members)]
    said = score(np.array([1, 2, 3]), digests, heads(), blocks, recorded, "entropy", judged)
    assert said.scores is not None
    assert said.scores.disagreement.tolist() == pytest.approx([0.72, 0.72, 0.08])
    weights, benign = Weights(0.1, 0.8, 0.1), {"bom": ("benign",)}
    reasons = [said.reason(task, weights, 0.0, heads(), benign) for task in (1, 2, 3)]
    assert reasons == ["record", "disagreement", "uncertainty"]
    alone = score(np.array([1, 2, 3]), digests, heads(), blocks, recorded, "entropy")
    assert alone.scores is not None
    assert alone.scores.disagreement.tolist() == pytest.approx([0.16, 0.72, 0.08])


def test_what_is_kept_is_read_back(tmp_path: Path) -> None:
    said = made([1, 2, 3], 0)
    said.save(tmp_path / "predictions.npz")
    assert_same(Scored.load(tmp_path / "predictions.npz"), said)


def test_later_tasks_follow_and_a_new_image_replaces_the_old_one(tmp_path: Path) -> None:
    first, second, third = made([1, 2, 3], 0), made([4, 2], 1), made([5, 4], 2)
    first.save(tmp_path / "predictions.npz")
    assert_same(scored.of_version(tmp_path), first)
    scored.add(tmp_path, second)
    scored.add(tmp_path, third)
    whole = scored.of_version(tmp_path)
    assert sorted(whole.ids.tolist()) == [1, 2, 3, 4, 5]
    for task, of in {1: first, 2: second, 3: first, 4: third, 5: third}.items():
        row, there = whole.row_of[task], of.row_of[task]
        np.testing.assert_array_equal(whole.of(task)["bom"], of.of(task)["bom"])
        assert whole.pixels[row] == of.pixels[there]
        assert whole.scores.uncertainty[row] == of.scores.uncertainty[there]
    assert_same(Scored.load(tmp_path / "predictions.npz"), first)  # what the cycle said stays as it was


def test_a_new_task_under_an_old_number_inherits_nothing() -> None:
    said = made([1, 2, 3], 0)
    now = {1: "digest1-0", 2: None, 3: "another image", 4: "digest4-0"}
    assert said.still(now) == [1]


def test_surviving_heads_go_on_under_another_config() -> None:
    said = made([1, 2, 3], 0)
    reordered = CONFIG.replace(
        '<Choice value="benign"/><Choice value="malignant"/>', '<Choice value="malignant"/><Choice value="benign"/>'
    )
    turned = said.under(heads(reordered.replace('"0.8"', '"0.5"').replace('"0.2"', '"0.5"')))
    np.testing.assert_array_equal(turned.probabilities["bom"], said.probabilities["bom"][:, ::-1])
    np.testing.assert_allclose(turned.scores.uncertainty, said.scores.head_uncertainty.mean(axis=1), atol=1e-6)

    added = said.under(heads(CONFIG.replace('<Choice value="irregular"/>', '<Choice value="spiculated"/>')))
    assert set(added.probabilities) == {"bom"}  # margin means something else now
    np.testing.assert_allclose(added.scores.uncertainty, 0.8 * said.scores.head_uncertainty[:, 0], atol=1e-6)
    assert added.scores.heads == ("bom", "margin") and not added.scores.head_uncertainty[:, 1].any()


def test_the_same_config_changes_nothing() -> None:
    said = made([1, 2, 3], 0)
    again = said.under(heads())
    np.testing.assert_allclose(again.scores.uncertainty, said.scores.uncertainty, atol=1e-6)
    np.testing.assert_allclose(again.scores.disagreement, said.scores.disagreement, atol=1e-6)
    assert_same(replace(again, scores=None), replace(said, scores=None))


@pytest.mark.parametrize("change", [('name="bom"', 'name="bet"'), ('name="bom"', 'name="bom" choice="multiple"')])
def test_no_survivor_leaves_nothing_to_say(change: tuple[str, str]) -> None:
    only = CONFIG.split('<Choices name="margin"')[0].replace(' model_weight="0.8"', "") + "</View>"
    said = made([1, 2], 0, only)
    assert said.scores is not None
    after = said.under(heads(only.replace(*change)))
    assert after.scores is None and not after.probabilities and after.of(1) == {}
