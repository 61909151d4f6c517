import numpy as np
import pytest

from backend.segmentation.pixel_uncertainty import pixel_uncertainty
from tasks.ranking.uncertainty import MEASURES, NoSpread, uncertainty


@pytest.mark.parametrize("name", sorted(MEASURES))
def test_each_pixel_scores_as_a_task_would(name: str) -> None:
    members = np.random.default_rng(0).random((3, 2, 4, 5), dtype=np.float32)
    found = pixel_uncertainty(name, members)
    assert found.shape == (4, 5) and found.dtype == np.float32
    for line in range(4):
        for column in range(5):
            alone = uncertainty(name, members[:, None, :, line, column], multiple=True)
            assert found[line, column] == pytest.approx(float(alone[0]), abs=1e-6)


def test_one_member_has_no_spread() -> None:
    with pytest.raises(NoSpread):
        pixel_uncertainty("mutual_information", np.zeros((1, 1, 2, 2), dtype=np.float32))
