"""Masks beside label-studio-sdk's own coder, and beside what Label Studio's brush writes: items of several values."""

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from label_studio_sdk.converter import brush

from tasks.rle import RleError, decode_mask, decode_runs, encode_mask, encode_runs

SHAPES = arrays.array_shapes(min_dims=2, max_dims=2, max_side=40)
FEW_VALUES = st.sampled_from([0, 0, 255, 255, 1, 128])


@given(arrays.arrays(np.uint8, SHAPES, elements=FEW_VALUES, fill=FEW_VALUES))
@example(np.zeros((1, 1), dtype=np.uint8))
@example(np.full((300, 300), 255, dtype=np.uint8))  # longer than the longest run
@example(np.arange(256, dtype=np.uint8).reshape(16, 16))
def test_masks_are_coded_bit_for_bit_as_the_sdk_does(mask: Any) -> None:
    rle = encode_mask(mask)
    assert rle == brush.mask2rle(mask)
    np.testing.assert_array_equal(decode_mask(rle, *mask.shape), mask)


@given(st.lists(st.tuples(st.integers(1, 300), st.integers(0, 255)), min_size=1, max_size=60))
@example([(65536, 7)])
@example([(65537, 7), (1, 0), (200_000, 255)])
@example([(8, 1), (9, 2), (16, 3), (17, 4), (256, 5), (257, 6)])
def test_runs_of_every_length(runs: list[tuple[int, int]]) -> None:
    merged = [runs[0]]
    for length, value in runs[1:]:
        if value != merged[-1][1]:
            merged.append((length, value))
    lengths = np.array([length for length, _ in merged])
    values = np.array([value for _, value in merged], dtype=np.uint8)
    whole = np.repeat(values, lengths)
    rle = encode_runs(lengths, values)
    assert rle == brush.encode_rle(whole)
    found, said, count = decode_runs(rle)
    np.testing.assert_array_equal(np.repeat(said, found), whole)
    assert count == len(whole)


@given(arrays.arrays(np.uint8, st.integers(1, 200)), st.data())
def test_items_of_several_values_are_read_as_label_studio_writes_them(values: Any, data: st.DataObject) -> None:
    """thi.ng's encoder, in the browser, writes values that do not repeat one after the other in one item."""
    sizes, bits, start = (3, 4, 8, 16), f"{len(values):032b}{7:05b}", 0
    bits += "".join(f"{size - 1:04b}" for size in sizes)
    while start < len(values):
        choice = data.draw(st.integers(0, 2))
        length = data.draw(st.integers(1, min(1 << sizes[choice], len(values) - start)))
        bits += f"0{choice:02b}{length - 1:0{sizes[choice]}b}"
        bits += "".join(f"{value:08b}" for value in values[start : start + length])
        start += length
    bits += "0" * (-len(bits) % 8)
    rle = [int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)]
    lengths, said, count = decode_runs(rle)
    np.testing.assert_array_equal(np.repeat(said, lengths), brush.decode_rle(rle))
    np.testing.assert_array_equal(np.repeat(said, lengths), values)
    assert count == len(values)


@given(arrays.arrays(np.uint8, SHAPES, elements=FEW_VALUES), st.data())
def test_what_is_cut_off_says_so(mask: Any, data: st.DataObject) -> None:
    rle = encode_mask(mask)
    with pytest.raises(RleError, match=r"cut off|too few"):
        decode_mask(rle[: data.draw(st.integers(0, max(len(rle) - 3, 0)))], *mask.shape)


@given(st.lists(st.integers(0, 255), min_size=7, max_size=60))
def test_any_bytes_are_read_or_refused(rle: list[int]) -> None:
    try:
        lengths, values, count = decode_runs([0, 0, rle[0], *rle[1:]])  # a header that asks for at most 2**16 values
    except RleError:
        return
    assert len(lengths) == len(values) and lengths.sum() == count


@pytest.mark.parametrize(
    ("rle", "said"),
    [
        ([1, 2, 3], "3 bytes, too few"),
        ([0, 0, 0, 4, 300, 0, 0, 0], "no list of bytes"),
        ([0, 0, 0, 4, "x", 0, 0, 0], "no list of bytes"),
        (10**9, "no list of bytes"),
        (None, "no list of bytes"),
        ([0, 0, 0, 4, 0b01111_000, 0, 0, 0], "values have 16 bits"),
    ],
)
def test_what_is_no_mask_is_refused_in_a_sentence(rle: Any, said: str) -> None:
    with pytest.raises(RleError, match=said):
        decode_mask(rle, 1, 1)


def test_a_mask_of_another_size_is_refused() -> None:
    rle = encode_mask(np.zeros((3, 5), dtype=np.uint8))
    with pytest.raises(RleError, match="60 values; 4 x 3 pixels need 48"):
        decode_mask(rle, 3, 4)
