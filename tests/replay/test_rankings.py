"""Rankings of suspects, beside cleanlab and beside a count over all pairs."""

import numpy as np
import pytest
from cleanlab.rank import get_label_quality_scores

from backend.replay.rankings import compared, ranked
from tasks.schema import Head

BOM = Head("bom", "image", "single", ("benign", "malignant"), 1.0, False, None, None, True)
GRADE = Head("tirads", "image", "single", ("TR1", "TR2", "TR3", "TR4"), 1.0, False, None, None, True)


def drawn(classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities (200, C), labels on record as one-hot, and which of them are wrong."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(classes, size=200)
    raw = rng.gamma(1.0, size=(200, classes)) + 2 * np.eye(classes)[truth]
    p = (raw / raw.sum(axis=1, keepdims=True)).astype(np.float32)
    wrong = rng.random(200) < 0.1
    label = np.where(wrong, (truth + 1) % classes, truth)
    return p, np.eye(classes, dtype=np.float32)[label], wrong


def by_pairs(doubt: np.ndarray, wrong: np.ndarray) -> float:
    pairs = [(a > b) + (a == b) / 2 for a in doubt[wrong] for b in doubt[~wrong]]
    return float(np.mean(pairs))


def test_a_ranking_is_counted_by_hand() -> None:
    doubt = np.array([0.9, 0.8, 0.8, 0.3, 0.2, 0.1, 0.1, 0, 0, 0], dtype=np.float32)
    wrong = np.array([True, False, True, True, False, False, False, False, False, False])
    said = ranked(doubt, wrong)
    assert said.auroc == pytest.approx(by_pairs(doubt, wrong))
    assert (said.precision, said.first_tenth) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
    assert ranked(doubt, np.zeros(10, dtype=bool)).auroc is None
    assert ranked(doubt, np.ones(10, dtype=bool)).precision is None


@pytest.mark.parametrize("head", [BOM, GRADE])
def test_the_image_alone_ranks_as_cleanlab_does(head: Head) -> None:
    p, recorded, wrong = drawn(len(head.classes))
    found = compared(head, 1 - (p * recorded).sum(axis=1), p, recorded, wrong)
    assert found["image"] == found["loop"]
    for method in ("self_confidence", "normalized_margin"):
        quality = get_label_quality_scores(recorded.argmax(axis=1), p, method=method)
        assert found[f"cleanlab {method}"].auroc == pytest.approx(by_pairs(-quality, wrong))
    assert found["image"].auroc == pytest.approx(found["cleanlab self_confidence"].auroc)
    assert found["image"].precision == found["cleanlab self_confidence"].precision


def test_multiple_choices_are_not_for_cleanlab() -> None:
    head = Head("foci", "image", "multiple", ("rim", "spots"), 1.0, False, None, None, True)
    p, recorded, wrong = drawn(2)
    assert compared(head, p[:, 0], p, recorded, wrong).keys() == {"loop", "image"}
