"""DICOM files to pixels as a viewer shows them: modality and VOI transforms, MONOCHROME1 inverted, colours as RGB.

Only what the picture needs is read: no name of a patient comes into memory. Nothing is unpacked before its size is
known to be within the bound.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from pydicom import config, uid
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import get_frame
from pydicom.filereader import read_dataset
from pydicom.pixels import apply_color_lut, get_decoder
from pydicom.tag import Tag

from backend.learning.grey import Transform, blocks, eight_bits, extremes, stretch
from backend.learning.image_error import ImageError

config.settings.reading_validation_mode = config.IGNORE  # its warnings quote the values of a patient's file

MAGIC_AT = 128
PLUGINS = {
    uid.ImplicitVRLittleEndian: "",
    uid.ExplicitVRLittleEndian: "",
    uid.ExplicitVRBigEndian: "",
    uid.DeflatedExplicitVRLittleEndian: "",
    uid.RLELossless: "pydicom",
    uid.JPEGBaseline8Bit: "pillow",
    uid.JPEGExtended12Bit: "pillow",
    uid.JPEG2000Lossless: "pillow",
    uid.JPEG2000: "pillow",
}
"""The transfer syntaxes that can be decoded, and by which of pydicom's plugins (none: not compressed)."""

REQUIRED = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "PhotometricInterpretation")
BYTES_PER_PIXEL = 4  # a pixel of more bytes counts as several towards the limit

TAGS: list[Any] = [Tag("Modality"), *(tag for tag in DicomDictionary if tag >> 16 in (0x0028, 0x5200, 0x7FE0))]
"""What is read of a file: how its pixels are to be understood, and they themselves."""


def is_dicom(data: bytes) -> bool:
    """Whether the file says so (it may well begin like a TIFF, for viewers that know no better), or begins with the
    first elements of one written without the preamble."""
    return _has_preamble(data) or (data[:2] in (b"\x02\x00", b"\x08\x00") and data[3:4] == b"\x00")


def _has_preamble(data: bytes) -> bool:
    return data[MAGIC_AT : MAGIC_AT + 4] == b"DICM"


def read_dicom(data: bytes, pixel_limit: int) -> Image.Image:
    """The first frame of a DICOM file as an image of mode L or RGB, in Rows x Columns.

    Grey values pass the modality transform (rescale or table) and the first VOI transform (table, else window: PS3.3
    C.11.2); without one, up to 8 bits are shown as they are and more are stretched over the range they use.

    Raises ImageError for a file without pixel data, one of more than `pixel_limit` pixels, and one whose transfer
    syntax cannot be decoded; for damaged ones also whatever pydicom and Pillow raise.
    """
    dataset = _read(data, pixel_limit)
    if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise ImageError(f"the DICOM file has no pixel data (modality {dataset.get('Modality') or 'unknown'})")
    missing = [name for name in REQUIRED if dataset.get(name) is None]
    if missing:
        raise ImageError(f"the DICOM file does not say {' and '.join(missing)}")
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    bytes_per_pixel = int(dataset.SamplesPerPixel) * int(dataset.BitsAllocated) / 8
    if rows * columns * max(1.0, bytes_per_pixel / BYTES_PER_PIXEL) > pixel_limit:
        raise ImageError(f"the image has {columns} x {rows} pixels, more than the limit of {pixel_limit:,}")
    if not rows * columns:
        raise ImageError(f"the DICOM file has {columns} x {rows} pixels")
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax not in PLUGINS:
        raise ImageError(
            f"the DICOM file's transfer syntax, {syntax.name} ({syntax}), cannot be decoded here; convert it to an"
            " uncompressed one, RLE or JPEG 2000"
        )
    try:
        if syntax.is_encapsulated:
            _check_frame(dataset, syntax)
        pixels, about = get_decoder(syntax).as_array(dataset, index=0, raw=True, decoding_plugin=PLUGINS[syntax])
    except UnidentifiedImageError as error:
        reason = "Pillow knows no such picture (of JPEG, only 8 bits)"
        raise ImageError(f"the DICOM file's picture, {syntax.name}, cannot be decoded: {reason}") from error
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise ImageError(f"the DICOM file's picture, {syntax.name}, cannot be decoded: {reason}") from error
    return _to_image(pixels, str(about["photometric_interpretation"]), _with_frame_attributes(dataset))


def _read(data: bytes, pixel_limit: int) -> Dataset:
    """The attributes in TAGS, with a transfer syntax, also where the file names none."""
    file = io.BytesIO(data)
    file.seek(MAGIC_AT + 4 if _has_preamble(data) else 0)
    meta = FileMetaDataset(read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2))
    if meta.get("TransferSyntaxUID") == uid.DeflatedExplicitVRLittleEndian:  # pydicom would inflate without a bound
        inflated = _inflate(data[file.tell() :], BYTES_PER_PIXEL * pixel_limit)
        dataset = read_dataset(io.BytesIO(inflated), False, True, specific_tags=TAGS)
        dataset.file_meta = meta
        return dataset
    dataset = pydicom.dcmread(io.BytesIO(data), force=True, specific_tags=TAGS)
    if not dataset.file_meta.get("TransferSyntaxUID"):
        implicit, little = dataset.original_encoding
        explicit = uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian if implicit else explicit
    return dataset


def _inflate(data: bytes, limit: int) -> bytes:
    unpacked = zlib.decompressobj(-zlib.MAX_WBITS)
    content = unpacked.decompress(data, limit)
    if unpacked.unconsumed_tail:
        raise ImageError(f"the deflated DICOM file unpacks to more than {limit:,} bytes")
    return content


def _check_frame(dataset: Dataset, syntax: uid.UID) -> None:
    """Raise ImageError where the compressed first frame is of another size than the header says."""
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    frame = get_frame(dataset.PixelData, 0, number_of_frames=int(dataset.get("NumberOfFrames") or 1))
    if syntax == uid.RLELossless:
        offsets = struct.unpack("<16L", frame[:64])
        ends = (*offsets[2 : offsets[0] + 1], len(frame))
        for start, end in zip(offsets[1:], ends, strict=False):
            if _run_length(memoryview(frame)[start:end], 2 * rows * columns) > 2 * rows * columns:
                raise ImageError(f"the DICOM file's run lengths unpack to more than {columns} x {rows} pixels")
        return
    with Image.open(io.BytesIO(frame), formats=("JPEG", "JPEG2000")) as codestream:
        if codestream.size != (columns, rows):
            width, height = codestream.size
            raise ImageError(f"the DICOM file says {columns} x {rows} pixels, its picture {width} x {height}")


def _run_length(segment: memoryview, enough: int) -> int:
    """How many bytes an RLE segment unpacks to (PS3.5 annex G); counted until `enough`."""
    size = position = 0
    while position < len(segment) and size <= enough:
        head = segment[position]
        if head < 128:
            size += head + 1
            position += head + 2
        elif head > 128:
            size += 257 - head
            position += 2
        else:
            position += 1
    return size


def _with_frame_attributes(dataset: Dataset) -> Dataset:
    """Enhanced objects keep window and rescale of a frame in groups, of all frames or of each."""
    for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in list(dataset.get(name) or [])[:1]:
            for part in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
                for item in list(group.get(part) or [])[:1]:
                    dataset.update({element.tag: element for element in item})
    return dataset


def _to_image(pixels: NDArray[Any], photometric: str, dataset: Dataset) -> Image.Image:
    if photometric in ("MONOCHROME1", "MONOCHROME2"):
        grey = _grey(pixels, dataset)
        return Image.fromarray(255 - grey if photometric == "MONOCHROME1" else grey)
    if photometric == "PALETTE COLOR":
        colours = np.empty((*pixels.shape, 3), np.uint8)
        for block in blocks(pixels):
            table = apply_color_lut(pixels[block], dataset)[..., :3]
            colours[block] = table >> 8 * (table.itemsize - 1)
        return Image.fromarray(colours)
    if photometric == "RGB" or photometric.startswith("YBR_FULL"):
        shift = max(0, int(dataset.BitsStored) - 8)
        image = Image.fromarray((pixels >> shift).astype(np.uint8))
        return image if photometric == "RGB" else Image.frombytes("YCbCr", image.size, image.tobytes()).convert("RGB")
    raise ImageError(f"the DICOM file's photometric interpretation, {photometric}, is not known here")


def _grey(pixels: NDArray[Any], dataset: Dataset) -> NDArray[np.uint8]:
    modality = _modality(dataset)
    view = _view(dataset) or stretch(*_range(pixels, modality, dataset))
    return eight_bits(pixels, lambda values: view(modality(values)))


def _range(pixels: NDArray[Any], modality: Transform, dataset: Dataset) -> tuple[float, float]:
    """The values to show as black and white where the file does not say: what up to 8 bits can hold, else the smallest
    and the largest there are, but for what fills the surround."""
    bits = int(dataset.get("BitsStored") or 32)
    if bits <= 8 and not dataset.get("PixelRepresentation"):
        ends = modality(np.array([0.0, 2.0**bits - 1]))
        return float(ends.min()), float(ends.max())
    return extremes(pixels, modality, dataset.get("PixelPaddingValue"))


def _modality(dataset: Dataset) -> Transform:
    """Stored values (float64) to those of the modality, such as Hounsfield units (PS3.3 C.11.1)."""
    if dataset.get("ModalityLUTSequence"):
        table, _ = _table(dataset.ModalityLUTSequence[0])
        return table
    slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
    if slope is None or intercept is None:
        return lambda values: values
    return lambda values: values * float(slope) + float(intercept)


def _view(dataset: Dataset) -> Transform | None:
    """Modality values to [0, 1] by the file's first table or window; None where it has none that makes sense."""
    if dataset.get("VOILUTSequence"):
        table, bits = _table(dataset.VOILUTSequence[0])
        return lambda values: table(values) / (2.0**bits - 1)
    try:
        center, width = (
            float(value if isinstance(value, (int, float)) else value[0])
            for value in (dataset.get("WindowCenter"), dataset.get("WindowWidth"))
        )
    except (TypeError, ValueError, IndexError):
        return None
    function = str(dataset.get("VOILUTFunction") or "LINEAR").upper()
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    if not width > 0 or not np.isfinite(center * width):
        return None
    if function == "SIGMOID":
        return lambda values: 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700)))
    return lambda values: (values - center) / width + 0.5


def _table(item: Dataset) -> tuple[Transform, int]:
    """A look-up table as a function, first and last entry holding beyond its ends; and the bits of its entries."""
    entries, first, bits = (int(value) for value in item.LUTDescriptor)
    entries = entries or 65536
    content = item.LUTData
    if isinstance(content, bytes):
        content = np.frombuffer(content, np.uint8 if len(content) == entries else "<u2")
    table = np.asarray(content, np.float64)[:entries]
    if not table.size:
        raise ImageError("the DICOM file has an empty look-up table")
    return lambda values: table[np.clip(values - first, 0, len(table) - 1).astype(np.intp)], bits
