from pathlib import Path

import numpy as np

from backend.learning.arrays import PixelFiles


def test_files_are_read_as_rows_of_an_array(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)
    paths = [tmp_path / f"{index}.npy" for index in range(5)]
    for path, image in zip(paths, pixels, strict=True):
        np.save(path, image)
    files = PixelFiles(paths)
    assert len(files) == 5
    assert np.array_equal(files[np.array([3, 0, 3])], pixels[[3, 0, 3]])
