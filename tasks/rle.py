"""Label Studio's masks: run-length encoded RGBA pixels, as its brush draws and reads them.

The format is that of thi.ng's rle-pack: a header (number of values, word size, four sizes of run lengths), then items
of `kind (1 bit), size (2), length - 1 (size), value`: a run of one value, or that many values one after the other.
Bit by bit what label-studio-sdk writes and reads (`converter.brush`), but with numpy instead of strings.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]

CHANNELS = 4  # red, green, blue, alpha: a mask is the same in all, and read from the last
WORD = 8  # bits of a value
SIZES = (3, 4, 8, 16)  # bits of a run's length
HEADER = 32 + 5 + 4 * 4  # bits
LONGEST = 1 << SIZES[-1]
FEW = 64  # pixels a run, from which on filling slices beats repeating values


class RleError(ValueError):
    """This is no mask of Label Studio's; the message says why."""


def encode_mask(mask: Bytes) -> list[int]:
    """The `rle` of a mask (H, W), uint8: 0 outside, 255 (or any other value) inside."""
    flat = np.ascontiguousarray(mask, dtype=np.uint8).ravel()
    ends = np.append(_changes(flat), len(flat))[len(flat) == 0 :]
    return encode_runs(np.diff(ends, prepend=0) * CHANNELS, flat[ends - 1])


def encode_runs(lengths: Ints, values: Bytes) -> list[int]:
    """The `rle` of values (R,), each as often as `lengths` (R,) says; neighbours differ, lengths are 1 or more."""
    # What is longer than the largest size holds goes in parts, all of them in that size.
    parts = -(-lengths // LONGEST)
    last = np.cumsum(parts) - 1
    length = np.full(int(parts.sum()), LONGEST)
    length[last] = lengths - (parts - 1) * LONGEST
    value = np.repeat(values, parts).astype(np.int64)
    size = np.searchsorted([1 << bits for bits in SIZES[:-1]], length)
    size[np.repeat(parts > 1, parts)] = len(SIZES) - 1
    bits = np.array(SIZES)[size]
    kind = (length > 1) | (size > 0)
    code = ((kind << 2 | size) << bits | (length - 1)) << WORD | value
    header = [(len_, width) for len_, width in ((int(lengths.sum()), 32), (WORD - 1, 5), *((n - 1, 4) for n in SIZES))]
    return _packed(
        np.concatenate([[number for number, _ in header], code]),
        np.concatenate([[width for _, width in header], 3 + bits + WORD]),
    )


def decode_mask(rle: Sequence[int], height: int, width: int) -> Bytes:
    """The mask (H, W), uint8, of an `rle`: its alpha channel. Raises RleError where it is none of that size."""
    lengths, values, count = decode_runs(rle)
    if count != height * width * CHANNELS:
        raise RleError(f"the mask holds {count} values; {width} x {height} pixels need {height * width * CHANNELS}")
    ends = np.cumsum(lengths) // CHANNELS
    if len(ends) * FEW > height * width:
        return np.repeat(values, np.diff(ends, prepend=0)).reshape(height, width)
    mask = np.zeros(height * width, dtype=np.uint8)
    inside = np.flatnonzero(values)
    starts = np.where(inside > 0, ends[inside - 1], 0)
    for start, end, value in zip(starts.tolist(), ends[inside].tolist(), values[inside].tolist(), strict=True):
        mask[start:end] = value
    return mask.reshape(height, width)


def decode_runs(rle: Sequence[int]) -> tuple[Ints, Bytes, int]:
    """Lengths (R,) and values (R,) of an `rle`, and how many values it holds in all.

    Raises RleError where it is cut off, or is none.
    """
    if not isinstance(rle, Sequence):  # bytes(10**9) is a gigabyte of zeros
        raise RleError(f"the mask is no list of bytes but {rle!r}")
    try:
        data = np.frombuffer(bytes(rle), dtype=np.uint8)
    except (TypeError, ValueError) as error:
        raise RleError(f"the mask is no list of bytes: {error}") from error
    if 8 * data.size < HEADER:
        raise RleError(f"the mask has {data.size} bytes, too few for its header")
    head = int.from_bytes(data[:7].tobytes()) >> 3
    count, word = head >> 21, (head >> 16 & 31) + 1
    sizes = [(head >> shift & 15) + 1 for shift in (12, 8, 4, 0)]
    if word != WORD:
        raise RleError(f"the mask's values have {word} bits; Label Studio's have {WORD}")
    runs, lengths, values_at = (np.array(column, dtype=np.int64) for column in _items(data, sizes, count))
    # A run is one value; the other items are as many as they are long.
    each = np.where(runs, 1, lengths)
    first = np.repeat(np.cumsum(each) - each, each)
    at = np.repeat(values_at, each) + WORD * (np.arange(len(first)) - first)
    if len(at) and int(at[-1]) + WORD > 8 * len(data):
        raise RleError("the mask is cut off")
    length = np.repeat(np.where(runs, lengths, 1), each)
    if len(length):
        length[-1] -= length.sum() - count  # the last item may say more than there is
    return length, (_windows(data)[at >> 3] >> (24 - (at & 7)) & 255).astype(np.uint8), count


def _changes(flat: Bytes) -> Ints:
    """Where a value differs from the one before it. Eight at a time: masks are mostly the same."""
    words = max(len(flat) - 1, 0) // 8
    behind = np.frombuffer(flat, np.uint64, words)
    ahead = np.frombuffer(flat, np.uint64, words, offset=1) if words else behind
    near = (np.flatnonzero(behind != ahead)[:, None] * 8 + np.arange(8)).ravel()
    at: Ints = np.append(near, np.arange(8 * words, max(len(flat) - 1, 0)))
    changes: Ints = at[flat[at + 1] != flat[at]] + 1
    return changes


def _packed(numbers: Ints, widths: Ints) -> list[int]:
    """Numbers of `widths` bits one after the other, filled up with 1 to 8 zeros, as the SDK does."""
    starts = np.cumsum(widths) - widths
    total = int(starts[-1] + widths[-1])
    # Each number lies in five bytes at most, and no two share a bit, so that sums are as good as ors.
    lying = numbers << (40 - widths - (starts & 7))
    packed = np.zeros(total // 8 + 5)
    for byte in range(5):
        packed += np.bincount((starts >> 3) + byte, (lying >> (32 - 8 * byte)) & 255, len(packed))
    found: list[int] = packed[: total // 8 + 1].astype(np.uint8).tolist()
    return found


def _items(data: Bytes, sizes: Sequence[int], count: int) -> tuple[list[int], list[int], list[int]]:
    """Of each item: whether it is a run, how long it is, and where its first value is, in bits."""
    windows = _windows(data).tolist()  # a list: where an item begins is known only when the one before it was read
    position, covered = HEADER, 0
    runs, lengths, values_at = [], [], []
    masks = [(1 << size) - 1 for size in sizes]
    while covered < count:
        try:
            bits = windows[position >> 3] << (position & 7)
        except IndexError:
            raise RleError("the mask is cut off") from None
        is_run, choice = bits >> 31 & 1, bits >> 29 & 3
        length = (bits >> (29 - sizes[choice]) & masks[choice]) + 1
        runs.append(is_run)
        lengths.append(length)
        position += 3 + sizes[choice]
        values_at.append(position)
        position += WORD if is_run else WORD * length
        covered += length
    return runs, lengths, values_at


def _windows(data: Bytes) -> Ints:
    """The 32 bits from each byte on, zeros behind the end."""
    wide = np.concatenate([data, np.zeros(3, dtype=np.uint8)]).astype(np.int64)
    return wide[:-3] << 24 | wide[1:-2] << 16 | wide[2:-1] << 8 | wide[3:]
