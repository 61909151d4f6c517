from pathlib import Path

import numpy as np
import pytest

from backend.learning.backbone import WeightsError
from backend.learning.config import LearningConfig
from backend.learning.crossfit import cross_fit, ensemble
from backend.learning.weights import load_crossfit, save_crossfit


def test_a_saved_crossfit_predicts_the_same(tmp_path: Path, cohort) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 120)
    x = (rng.normal(size=(120, 4)) + labels[:, None]).astype(np.float32)
    config = LearningConfig(folds=3, head_seeds=2)
    fitted = cross_fit([x], cohort.targets(labels), np.arange(120) % 3, cohort.heads, config)
    save_crossfit(fitted, tmp_path / "version" / "heads.safetensors")
    found = load_crossfit(tmp_path / "version" / "heads.safetensors")
    assert found.temperatures == fitted.temperatures and found.multiple == fitted.multiple
    for name, members in ensemble(fitted, [x]).items():
        assert np.array_equal(members, ensemble(found, [x])[name])


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "heads.safetensors"
    path.write_bytes(b"half")
    with pytest.raises(WeightsError, match="does not hold the heads"):
        load_crossfit(path)
