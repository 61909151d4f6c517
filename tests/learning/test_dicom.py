"""DICOM files as viewers show them, on the files that come with pydicom and on ones made here."""

import io
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_modality_lut, apply_voi_lut, apply_windowing, pixel_array
from pydicom.sequence import Sequence

from backend.learning.decode import decode
from backend.learning.dicom import is_dicom, read_dicom
from backend.learning.image_error import ImageError

LIMIT = 10**7
RAMP = np.arange(64 * 32, dtype=np.uint16).reshape(32, 64)


def shipped(name: str) -> bytes:
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str)
    return Path(path).read_bytes()


def made(pixels: np.ndarray[Any, Any], syntax: str = uid.ExplicitVRLittleEndian, **elements: Any) -> bytes:
    """A DICOM file of these grey or RGB pixels; `elements` overwrite what follows from them."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = uid.SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    bits = pixels.dtype.itemsize * 8
    colour = pixels.shape[-1] == 3
    defaults = {
        "PatientName": "Doe^Jane",
        "Modality": "US",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "SamplesPerPixel": 3 if colour else 1,
        "PhotometricInterpretation": "RGB" if colour else "MONOCHROME2",
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "PixelData": pixels.tobytes(),
    }
    if colour:
        defaults["PlanarConfiguration"] = 0
    for name, value in (defaults | elements).items():
        if value is not None:
            setattr(dataset, name, value)
    dataset["PixelData"].VR = "OW"
    file = io.BytesIO()
    pydicom.dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


def read(data: bytes) -> np.ndarray[Any, Any]:
    return np.asarray(read_dicom(data, LIMIT)).astype(int)


# --- grey values


WINDOWED = ["MR_small.dcm", "MR_small_RLE.dcm", "MR_small_implicit.dcm", "MR_small_bigendian.dcm", "693_J2KI.dcm"]
WINDOWED += ["MR_small_jp2klossless.dcm", "MR_small_padded.dcm", "J2K_pixelrep_mismatch.dcm", "examples_overlay.dcm"]


@pytest.mark.parametrize("name", WINDOWED)
def test_windows_are_those_of_pydicom(name: str) -> None:
    data = shipped(name)
    dataset = pydicom.dcmread(io.BytesIO(data))
    values = apply_modality_lut(pixel_array(dataset), dataset)
    low, high = apply_windowing(np.array([-1e9, 1e9]), dataset)
    expected = (apply_voi_lut(values, dataset) - low) / (high - low) * 255
    assert np.abs(read(data) - expected).max() <= 0.501


@settings(max_examples=60, deadline=None)
@given(
    function=st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
    center=st.floats(-3000, 3000),
    width=st.floats(1.5, 5000),
    slope=st.sampled_from([1.0, 0.5, 3.0]),
    intercept=st.sampled_from([0.0, -1024.0]),
)
def test_any_window_is_that_of_pydicom(
    function: str, center: float, width: float, slope: float, intercept: float
) -> None:
    center, width = round(center, 3), round(width, 3)  # decimal strings are short
    data = made(
        RAMP,
        WindowCenter=[center, 0],
        WindowWidth=[width, 1],
        VOILUTFunction=function,
        RescaleSlope=slope,
        RescaleIntercept=intercept,
    )
    dataset = pydicom.dcmread(io.BytesIO(data))
    low, high = intercept, 65535 * slope + intercept
    expected = (apply_windowing(apply_modality_lut(RAMP, dataset), dataset) - low) / (high - low) * 255
    assert np.abs(read(data) - expected).max() <= 0.501


def test_without_a_window_eight_bits_stay_and_more_are_stretched() -> None:
    eight = (RAMP // 16).astype(np.uint8)
    assert np.array_equal(read(made(eight)), eight)
    assert np.array_equal(read(made(eight >> 1, BitsStored=7, HighBit=6)), np.rint((eight >> 1) * (255 / 127)))
    assert np.array_equal(read(made(RAMP + 500)), np.rint(RAMP * (255 / 2047)))
    signed = RAMP.astype(np.int16) - 1000
    assert np.array_equal(read(made(signed)), np.rint(RAMP * (255 / 2047)))
    assert not read(made(np.full((8, 8), 700, np.uint16))).any()


@pytest.mark.parametrize("window", [{"WindowCenter": 5}, {"WindowCenter": 5, "WindowWidth": 0}, {"WindowWidth": 9}])
def test_half_a_window_is_none(window: dict[str, int]) -> None:
    assert np.array_equal(read(made(RAMP, **window)), read(made(RAMP)))


def test_monochrome1_is_inverted() -> None:
    for elements in ({}, {"WindowCenter": 1000, "WindowWidth": 800}):
        upright = read(made(RAMP, **elements))
        assert np.array_equal(read(made(RAMP, PhotometricInterpretation="MONOCHROME1", **elements)), 255 - upright)


def test_a_negative_slope_turns_dark_into_bright() -> None:
    assert np.array_equal(read(made(RAMP, RescaleSlope=-1, RescaleIntercept=0)), np.rint((2047 - RAMP) * (255 / 2047)))


def test_the_surround_does_not_spoil_the_stretch() -> None:
    pixels = RAMP.astype(np.int16)
    pixels[:4] = -2000
    whole = read(made(pixels, PixelPaddingValue=None))
    padded = read(made(pixels, PixelPaddingValue=-2000))
    assert whole[4:].min() > 100 and padded[4:].min() == 0 and padded[:4].max() == 0


def table(values: np.ndarray[Any, Any], first: int, bits: int) -> Sequence:
    item = Dataset()
    item.LUTDescriptor = [len(values), first, bits]
    item.LUTData = values.tolist()
    item["LUTDescriptor"].VR = item["LUTData"].VR = "US"
    return Sequence([item])


def test_tables_of_eight_bits_for_values_of_twelve() -> None:
    entries = np.linspace(255, 0, 1000).astype(np.uint16)
    expected = entries[np.clip(RAMP.astype(int) - 300, 0, 999)]
    assert np.array_equal(read(made(RAMP, VOILUTSequence=table(entries, 300, 8))), expected)
    # As the transform of a modality, its values are then windowed or stretched.
    assert np.array_equal(read(made(RAMP, ModalityLUTSequence=table(entries, 300, 16))), expected)


def test_enhanced_objects_keep_the_window_with_the_frame() -> None:
    view, rescale, group = Dataset(), Dataset(), Dataset()
    view.WindowCenter, view.WindowWidth = 1000, 800
    rescale.RescaleSlope, rescale.RescaleIntercept = 2, -100
    group.FrameVOILUTSequence, group.PixelValueTransformationSequence = Sequence([view]), Sequence([rescale])
    plain = read(made(RAMP, WindowCenter=1000, WindowWidth=800, RescaleSlope=2, RescaleIntercept=-100))
    for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        assert np.array_equal(read(made(RAMP, **{name: Sequence([group])})), plain)


def test_large_images_pass_in_blocks() -> None:
    large = np.tile(RAMP, (64, 16))
    assert np.array_equal(read(made(large)), np.tile(read(made(RAMP)), (64, 16)))


# --- colours, frames, syntaxes

COLOURS = [
    "examples_rgb_color.dcm",
    "examples_ybr_color.dcm",
    "examples_jpeg2k.dcm",
    "SC_rgb_rle.dcm",
    "SC_rgb_jpeg.dcm",
]
COLOURS += ["SC_rgb_dcmtk_+eb+cy+np.dcm", "SC_rgb_small_odd_big_endian.dcm", "SC_ybr_full_422_uncompressed.dcm"]
COLOURS += ["SC_rgb_gdcm_KY.dcm", "SC_jpeg_no_color_transform.dcm", "SC_rgb_jpeg_app14_dcmd.dcm", "ExplVR_BigEnd.dcm"]


@pytest.mark.parametrize("name", COLOURS)
def test_colours_are_those_of_pydicom(name: str) -> None:
    data = shipped(name)
    assert np.abs(read(data) - pixel_array(pydicom.dcmread(io.BytesIO(data)), index=0).astype(int)).max() <= 1


def test_deeper_colours_and_palettes_become_eight_bits() -> None:
    assert np.array_equal(read(shipped("SC_rgb_rle_16bit.dcm")), read(shipped("SC_rgb_rle.dcm")))
    assert np.array_equal(read(shipped("SC_rgb_rle_32bit.dcm")), read(shipped("SC_rgb_rle.dcm")))
    data = shipped("examples_palette.dcm")
    dataset = pydicom.dcmread(io.BytesIO(data))
    channels = [getattr(dataset, f"{name}PaletteColorLookupTableData") for name in ("Red", "Green", "Blue")]
    tables = np.stack([np.frombuffer(channel, "<u2") for channel in channels], axis=-1)
    assert np.array_equal(read(data), tables[dataset.pixel_array] >> 8)


def test_of_several_frames_the_first_is_taken() -> None:
    frames = np.stack([RAMP, RAMP[::-1]])
    several = made(RAMP, NumberOfFrames=2, PixelData=frames.tobytes())
    assert np.array_equal(read(several), read(made(RAMP)))
    assert np.array_equal(read(shipped("SC_rgb_rle_2frame.dcm")), read(shipped("SC_rgb_rle.dcm")))


def test_deflated_and_headless_files() -> None:
    assert np.array_equal(
        read(shipped("image_dfl.dcm")), pydicom.dcmread(io.BytesIO(shipped("image_dfl.dcm"))).pixel_array
    )
    headless = made(RAMP)[132:]
    assert is_dicom(headless) and np.array_equal(read(headless), read(made(RAMP)))
    meta = pydicom.dcmread(io.BytesIO(made(RAMP))).file_meta.FileMetaInformationGroupLength
    assert np.array_equal(read(headless[12 + meta :]), read(made(RAMP)))


def test_decode_takes_them_also_where_they_begin_like_a_tiff() -> None:
    data = shipped("CT_small.dcm")
    assert data[:4] == b"II*\0"
    pixels = decode(data, 128)
    assert pixels.shape == (128, 128, 3) and np.array_equal(pixels[..., 0], read(data))


# --- what cannot be used


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("MR_small_jpeg_ls_lossless.dcm", r"transfer syntax, JPEG-LS Lossless .*1\.2\.840\.10008\.1\.2\.4\.80"),
        ("SC_rgb_jpeg_gdcm.dcm", r"transfer syntax, JPEG Lossless, .*1\.2\.840\.10008\.1\.2\.4\.70"),
        ("JPEG-lossy.dcm", r"JPEG Extended .* cannot be decoded: .*8 bits"),
        ("GDCMJ2K_TextGBR.dcm", "JPEG 2000 .* cannot be decoded"),
        ("test-SR.dcm", r"no pixel data \(modality SR\)"),
        ("waveform_ecg.dcm", r"no pixel data \(modality ECG\)"),
        ("rtplan_truncated.dcm", r"no pixel data"),
        ("MR_truncated.dcm", "damaged or cut short"),
        ("nested_priv_SQ.dcm", "does not say Rows"),
    ],
)
def test_what_cannot_be_used_says_why(name: str, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        decode(shipped(name), 32)


def test_reasons_name_no_patient() -> None:
    with pytest.raises(ImageError) as caught:
        decode(made(RAMP, PhotometricInterpretation="HSV"), 32)
    assert "HSV" in str(caught.value) and "Doe" not in str(caught.value)


def codestream(kind: str, side: int, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new("L", (side, side)).save(file, kind, **options)
    return file.getvalue()


def run_lengths(size: int) -> bytes:
    """An RLE frame of one segment that unpacks to `size` zeros."""
    return struct.pack("<16L", 1, 64, *[0] * 14) + b"\x81\x00" * (size // 128)


def deflated(pixels: int) -> bytes:
    """A deflated file of 16 x 16 pixels, with `pixels` of them behind."""
    plain = made(np.zeros((16, 16), np.uint8), PixelData=bytes(pixels))
    start = 144 + pydicom.dcmread(io.BytesIO(plain)).file_meta.FileMetaInformationGroupLength
    empty = made(np.zeros((16, 16), np.uint8), uid.DeflatedExplicitVRLittleEndian)
    head = 144 + pydicom.dcmread(io.BytesIO(empty)).file_meta.FileMetaInformationGroupLength
    pack = zlib.compressobj(9, zlib.DEFLATED, -15)
    return empty[:head] + pack.compress(plain[start:]) + pack.flush()


BOMBS = {
    "rows and columns": (made(RAMP, Rows=65535, Columns=65535), "65535 x 65535 pixels, more than the limit"),
    "bits": (made(RAMP, Rows=900, Columns=900, BitsAllocated=64, BitsStored=64), "more than the limit"),
    "no rows": (made(RAMP, Rows=0), "64 x 0 pixels"),
    "inflated": (deflated(50_000_000), "unpacks to more than 4,000,000 bytes"),
    "run lengths": (
        made(np.zeros((16, 16), np.uint8), uid.RLELossless, PixelData=encapsulate([run_lengths(10**8)])),
        "unpack to more than 16 x 16",
    ),
    "JPEG": (
        made(np.zeros((16, 16), np.uint8), uid.JPEGBaseline8Bit, PixelData=encapsulate([codestream("JPEG", 900)])),
        "says 16 x 16 pixels, its picture 900 x 900",
    ),
    "JPEG 2000": (
        made(
            np.zeros((16, 16), np.uint8),
            uid.JPEG2000Lossless,
            PixelData=encapsulate([codestream("JPEG2000", 900, no_jp2=True)]),
        ),
        "says 16 x 16 pixels, its picture 900 x 900",
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_before_they_are_unpacked(name: str) -> None:
    data, reason = BOMBS[name]
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match=reason):
            decode(data, 32, pixel_limit=1_000_000)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_the_same_ways_of_packing_are_fine_where_they_fit() -> None:
    zeros = np.zeros((16, 16), np.uint8)
    assert read_dicom(deflated(256), LIMIT).size == (16, 16)
    for syntax, frame in (
        (uid.RLELossless, run_lengths(256)),
        (uid.JPEGBaseline8Bit, codestream("JPEG", 16)),
        (uid.JPEG2000Lossless, codestream("JPEG2000", 16, no_jp2=True)),
    ):
        assert not read(made(zeros, syntax, PixelData=encapsulate([frame]))).any()


DAMAGED = ["MR_small.dcm", "MR_small_RLE.dcm", "examples_palette.dcm", "image_dfl.dcm", "SC_rgb_jpeg_dcmtk.dcm"]
DAMAGED += ["MR_small_jp2klossless.dcm", "SC_rgb_rle_2frame.dcm", "rtdose_rle.dcm"]


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=500, deadline=None)
@example(name="image_dfl.dcm", where=0.029721627912801644, early=False, junk=b"\x00", cut=False)  # a length
@given(
    name=st.sampled_from(DAMAGED),
    where=st.floats(0, 1, exclude_max=True),
    early=st.booleans(),
    junk=st.binary(min_size=1, max_size=8),
    cut=st.booleans(),
)
def test_damage_anywhere_gives_an_image_or_a_reason(
    name: str, where: float, early: bool, junk: bytes, cut: bool
) -> None:
    data = shipped(name)
    at = int(where * (min(4000, len(data)) if early else len(data)))
    damaged = data[:at] + junk + (b"" if cut else data[at + len(junk) :])
    try:
        assert decode(damaged, 16, pixel_limit=1_000_000).shape == (16, 16, 3)
    except ImageError as error:
        assert str(error)
