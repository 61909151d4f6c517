"""Tiles cover an image and become it again; where they overlap, a loop over pixels says whose word it is."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.tiling import COLUMNS, Place, Tile, cells, places, put_back, read_tile

SIDES = st.integers(1, 17).flatmap(lambda side: st.tuples(st.just(side), st.integers(0, side - 1)))
LENGTHS = st.integers(1, 50)


@settings(deadline=None)
@given(LENGTHS, LENGTHS, SIDES, st.randoms(use_true_random=False))
def test_tiles_put_back_are_the_image(height: int, width: int, cut: tuple[int, int], random: Any) -> None:
    side, overlap = cut
    image = np.random.default_rng(random.randrange(1 << 30)).integers(0, 256, (2, height, width), dtype=np.uint8)
    found = places(height, width, side, overlap)
    assert {(place.height, place.width) for place in found} == {(min(side, height), min(side, width))}
    for one, length, share in (("x", width, overlap), ("y", height, overlap)):
        starts = sorted({getattr(place, one) for place in found})
        assert starts[0] == 0 and starts[-1] + min(side, length) == length
        assert all(a < b <= a + side - share for a, b in zip(starts, starts[1:], strict=False))
    random.shuffle(found)
    tiles = [image[:, place.y : place.y + place.height, place.x : place.x + place.width] for place in found]
    np.testing.assert_array_equal(put_back(tiles, found, height, width), image)


def deepest(tiles: Any, found: list[Place], said: Any, row: int, column: int) -> int:
    best, value = 0, 0
    for tile, place, speaks in zip(tiles, found, said, strict=True):
        y, x = row - place.y, column - place.x
        if 0 <= y < place.height and 0 <= x < place.width and speaks[y, x]:
            depth = min(y + 1, place.height - y) * min(x + 1, place.width - x)
            if depth > best:
                best, value = depth, int(tile[y, x])
    return value


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.data())
def test_in_overlaps_the_deepest_that_says_something_holds(height: int, width: int, data: st.DataObject) -> None:
    sizes = st.tuples(st.integers(0, width - 1), st.integers(0, height - 1)).flatmap(
        lambda at: st.builds(
            Place, st.just(at[0]), st.just(at[1]), st.integers(1, width - at[0]), st.integers(1, height - at[1])
        )
    )
    found = data.draw(st.lists(sizes, min_size=1, max_size=5))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    tiles = [np.full((place.height, place.width), number, dtype=np.uint8) for number, place in enumerate(found, 1)]
    said = [rng.random(tile.shape) < 0.7 for tile in tiles]
    whole = put_back(tiles, found, height, width, said)
    expected = [[deepest(tiles, found, said, row, column) for column in range(width)] for row in range(height)]
    np.testing.assert_array_equal(whole, expected)


def test_what_does_not_fit_is_refused() -> None:
    for overlap in (-1, 8):
        with pytest.raises(ValueError, match=f"tiles of 8 pixels cannot overlap by {overlap}: it takes 0 to 7"):
            places(20, 20, 8, overlap)
    with pytest.raises(ValueError, match="holds a tile of 5 x 4 pixels"):
        put_back([np.zeros((4, 5), np.uint8)], [Place(0, 0, 5, 5)], 9, 9)
    with pytest.raises(ValueError, match="not inside an image of 9 x 9"):
        put_back([np.zeros((4, 5), np.uint8)], [Place(5, 0, 5, 4)], 9, 9)


def test_a_place_is_written_and_read() -> None:
    tile = Tile("a/b c.tif", Place(3, 5, 10, 12), 40, 30)
    row = cells(tile)
    assert tuple(row) == COLUMNS
    assert read_tile(row | {"file": "x"}) == tile
    for changed, says in (
        ({"tile_of": ""}, "it has no tile_of"),
        ({"tile_x": "left"}, "not in whole pixels"),
        ({"tile_y": "29"}, "not inside its image"),
        ({"tile_width": "0"}, "not inside its image"),
    ):
        with pytest.raises(ValueError, match=says):
            read_tile(row | changed)
