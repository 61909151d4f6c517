"""Large images as patch tasks: where their tiles lie, and how masks of tiles become the image's mask again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

COLUMNS = ("tile_of", "tile_x", "tile_y", "tile_width", "tile_height", "orig_width", "orig_height")
"""What labels.csv says of a tile: the image it is cut from, its place in it, and that image's size, in pixels."""


@dataclass(frozen=True)
class Place:
    """Where a tile lies in its image, in pixels from the upper left corner."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Tile:
    """A tile of an image of that size, in pixels. image: its file in the data folder that was cut."""

    image: str
    place: Place
    image_height: int
    image_width: int


def places(height: int, width: int, side: int, overlap: int = 0) -> list[Place]:
    """Tiles of side x side pixels that cover an image of that size, row by row.

    Neighbours share `overlap` pixels or more, spread evenly, so that every tile is whole; where the image is smaller
    than a tile, the tile is as small. Raises ValueError unless 0 <= overlap < side.
    """
    if not 0 <= overlap < side:
        raise ValueError(f"tiles of {side} pixels cannot overlap by {overlap}: it takes 0 to {side - 1}")
    tall, wide = min(side, height), min(side, width)
    lefts = starts(width, wide, overlap)
    return [Place(x, y, wide, tall) for y in starts(height, tall, overlap) for x in lefts]


def starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin so that they cover `length` and neighbours overlap by `overlap` or more, evenly spread."""
    if length <= tile:
        return [0]
    count = -(-(length - overlap) // (tile - overlap))
    found: list[int] = np.linspace(0, length - tile, count).round().astype(int).tolist()
    return found


def put_back(
    tiles: Sequence[Bytes],
    places: Sequence[Place],
    height: int,
    width: int,
    said: Sequence[NDArray[np.bool_]] | None = None,
) -> Bytes:
    """One array (..., height, width) of tiles (..., h, w) at their places; 0 where none lies.

    said: per tile (h, w), False where it says nothing; without it, each says something everywhere. Where tiles overlap,
    a pixel is that of the tile in which it lies deepest (the product of its distances to the tile's edges, in rows and
    in columns), and of the first of equals: at an edge the annotator sees half of what is cut. Raises ValueError for a
    tile that is not of its place's size, or lies outside the image.
    """
    whole = np.zeros((*(tiles[0].shape[:-2] if tiles else ()), height, width), dtype=np.uint8)
    deepest = np.zeros((height, width), dtype=np.int32)
    for number, (tile, place) in enumerate(zip(tiles, places, strict=True)):
        if tile.shape[-2:] != (place.height, place.width):
            raise ValueError(f"{place} holds a tile of {tile.shape[-1]} x {tile.shape[-2]} pixels")
        if not (0 <= place.x <= width - place.width and 0 <= place.y <= height - place.height):
            raise ValueError(f"{place} is not inside an image of {width} x {height} pixels")
        window = np.s_[place.y : place.y + place.height, place.x : place.x + place.width]
        depth = _depth(place.height)[:, None] * _depth(place.width)
        if said is not None:
            depth = depth * said[number]
        deeper = depth > deepest[window]
        deepest[window][deeper] = depth[deeper]
        whole[(..., *window)][..., deeper] = tile[..., deeper]
    return whole


def cells(tile: Tile) -> dict[str, str]:
    """What COLUMNS hold of a tile."""
    place = tile.place
    numbers = (place.x, place.y, place.width, place.height, tile.image_width, tile.image_height)
    return dict(zip(COLUMNS, (tile.image, *map(str, numbers)), strict=True))


def read_tile(row: Mapping[str, str]) -> Tile:
    """The tile that COLUMNS of a row name. Raises ValueError where they do not."""
    missing = [name for name in COLUMNS if not row.get(name)]
    if missing:
        raise ValueError(f"it has no {', '.join(missing)}")
    try:
        x, y, width, height, image_width, image_height = (int(row[name]) for name in COLUMNS[1:])
    except ValueError as error:
        raise ValueError(f"its place is not in whole pixels ({error})") from error
    if not (width > 0 and height > 0 and 0 <= x <= image_width - width and 0 <= y <= image_height - height):
        raise ValueError("its place is not inside its image")
    return Tile(row["tile_of"], Place(x, y, width, height), image_height, image_width)


def _depth(side: int) -> NDArray[np.int32]:
    """(side,): each pixel's distance to the nearer end, from 1 on."""
    place = np.arange(1, side + 1, dtype=np.int32)
    return np.minimum(place, side + 1 - place)
