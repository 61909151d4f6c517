"""Suspects, beside cleanlab's definition of self-confidence and the source document's rule."""

import numpy as np
import pytest

from tasks.ranking.suspects import suspects, suspicion
from tasks.schema import Head


def head(kind: str, classes: int) -> Head:
    names = tuple(str(c) for c in range(classes))
    return Head("bom", "image", kind, names, 1.0, False, None, None, required=True)  # type: ignore[arg-type]


def test_a_single_choice_is_doubted_as_its_label_is_unlikely() -> None:
    rng = np.random.default_rng(0)
    p, label = rng.dirichlet(np.ones(4), 300).astype(np.float32), rng.integers(0, 4, 300)
    target = np.eye(4, dtype=np.float32)[label]
    target[:20] = np.nan
    found = suspicion(p, target, head("single", 4))
    assert np.isnan(found[:20]).all()
    assert found[20:] == pytest.approx(1 - p[np.arange(20, 300), label[20:]], abs=1e-6)
    rule = [
        not np.isnan(t[0]) and row[y] < 0.2 and row.argmax() != y for row, y, t in zip(p, label, target, strict=True)
    ]
    assert suspects(p, target, head("single", 4)).tolist() == rule


def test_a_multiple_choice_is_doubted_by_its_least_likely_answer() -> None:
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4]], dtype=np.float32)
    target = np.array([[1, 0], [1, 1], [1, 0]], dtype=np.float32)
    assert suspicion(p, target, head("multiple", 2)).tolist() == pytest.approx([0.1, 0.9, 0.4])
    assert suspects(p, target, head("multiple", 2)).tolist() == [False, True, False]
