import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.segmentation.crops import Examples, Reviewed, frequency, reviewed_rows


def examples(shapes: list[tuple[int, int]], seed: int, share: float = 0.1) -> Examples:
    """Images whose pixels tell their place, and masks and reviewed that follow from them."""
    rng = np.random.default_rng(seed)
    images, masks, reviewed = [], [], []
    for height, width in shapes:
        place = np.stack([*np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), np.ones((height, width))])
        images.append(place.transpose(1, 2, 0).astype(np.uint8))
        masks.append((place[:1] % 3 == 0).astype(np.uint8))
        seen = (rng.random((height, width)) < share).astype(np.uint8)
        seen[rng.integers(height), rng.integers(width)] = 1
        reviewed.append(seen)
    return Examples(images, masks, reviewed)


@settings(deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 9999), st.sampled_from([32, 64]))
def test_a_crop_holds_a_reviewed_pixel_and_nothing_is_displaced(height: int, width: int, seed: int, size: int) -> None:
    known = examples([(height, width)], seed, share=0.001)
    crop = Reviewed(known, np.array([0])).crop(0, size, np.random.default_rng(seed))
    assert crop.image.shape == (size, size, 3) and crop.masks.shape == (1, size, size)
    lines, columns = np.nonzero(crop.reviewed)
    assert len(lines)
    inside = crop.reviewed != 0
    there = crop.image[inside][:, :2].astype(int)
    assert known.reviewed[0][there[:, 0], there[:, 1]].all()
    assert (crop.masks[0][inside] == (there[:, 0] % 3 == 0)).all()
    assert (np.diff(there - np.column_stack([lines, columns]), axis=0) == 0).all()  # one shift for all


def test_every_reviewed_pixel_can_be_in_a_crop_even_at_the_corners() -> None:
    known = examples([(70, 70)], 0, share=1.0)
    reviewed, rng = Reviewed(known, np.array([0])), np.random.default_rng(0)
    seen = np.zeros((70, 70), dtype=int)
    for _ in range(2500):
        crop = reviewed.crop(0, 32, rng)
        top, left = crop.image[0, 0, :2]
        seen[top : top + 32, left : left + 32] += 1
    assert seen.min() > 0


@settings(deadline=None)
@given(st.integers(0, 9999), st.integers(1, 400))
def test_pixels_are_reviewed_ones_without_repeats(seed: int, count: int) -> None:
    known = examples([(30, 20), (13, 47)], seed)
    reviewed = Reviewed(known, np.array([0, 1]))
    assert reviewed.area.tolist() == [np.count_nonzero(part) for part in known.reviewed]
    for row in (0, 1):
        lines, columns = reviewed.pixels(row, count, np.random.default_rng(seed))
        assert (
            len(lines) == min(count, reviewed.area[row]) == len(set(zip(lines.tolist(), columns.tolist(), strict=True)))
        )
        assert known.reviewed[row][lines, columns].all() and (np.diff(lines) >= 0).all()


def test_rows_without_a_reviewed_pixel_are_told_and_sizes_are_checked() -> None:
    known = examples([(5, 6), (7, 8)], 0)
    known.reviewed[1][:] = 0
    assert reviewed_rows(known).tolist() == [True, False]
    known.masks[0] = known.masks[0][:, :, :-1]  # type: ignore[index]
    with pytest.raises(ValueError, match=r"row 0: the image is \(5, 6, 3\), its masks are \(1, 5, 5\)"):
        Reviewed(known, np.array([0]))


def test_half_of_what_is_drawn_was_corrected_however_little_that_is() -> None:
    reviewed = np.zeros((4, 8, 8), dtype=np.uint8)
    reviewed[:2] = 1  # on record
    reviewed[2, :4, :4] = reviewed[3, :4, :2] = 1  # corrected
    people = np.array([False, False, True, True])
    often = frequency(reviewed, people)
    assert often[people].sum() == pytest.approx(often[~people].sum())
    assert often[2] == pytest.approx(2 * often[3]) and often[0] == often[1]
    # Where people have reviewed more than was on record, every reviewed pixel counts alike.
    np.testing.assert_array_equal(frequency(reviewed, ~people), [64, 64, 16, 8])
    np.testing.assert_array_equal(frequency(reviewed, np.ones(4, dtype=bool)), [64, 64, 16, 8])


def test_what_people_corrected_makes_half_of_the_crops_by_its_pixels() -> None:
    reviewed = [
        np.ones((40, 50), dtype=np.uint8),
        np.ones((20, 50), dtype=np.uint8),
        np.zeros((40, 50), dtype=np.uint8),
    ]
    reviewed += [np.zeros((40, 50), dtype=np.uint8) for _ in range(2)]
    reviewed[3][:10, :10], reviewed[4][5:10, :10] = 1, 1
    found = frequency(reviewed, np.array([False, False, True, True, True]))
    np.testing.assert_allclose(found / found.sum(), [1 / 3, 1 / 6, 0, 1 / 3, 1 / 6], rtol=1e-6)
    alone = frequency(reviewed, np.zeros(5, dtype=bool))
    np.testing.assert_allclose(alone / alone.sum(), np.array([2000, 1000, 0, 100, 50]) / 3150, rtol=1e-6)
