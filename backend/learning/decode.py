"""Image files to pixels: any file an annotator may upload becomes uint8 RGB of one size, or a plain reason."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from pydicom.errors import BytesLengthException

from backend.learning.dicom import is_dicom, read_dicom
from backend.learning.grey import eight_bits, extremes, stretch
from backend.learning.image_error import ImageError

__all__ = ["ImageError", "decode", "decode_whole"]

TILE_WIDTH, TILE_LENGTH = 322, 323
PIXEL_LIMIT = 100_000_000

# What browsers show and scanners write. Pillow knows more, some of which (EPS) run other programs.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "JPEG2000", "PPM", "AVIF")

# What Pillow's decoders and pydicom raise on damaged input.
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    TypeError,
    KeyError,
    IndexError,
    OverflowError,
    AttributeError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
    BytesLengthException,
)


def decode(data: bytes | Path, size: int, pixel_limit: int = PIXEL_LIMIT) -> NDArray[np.uint8]:
    """One image file (its bytes, or its path) as uint8 (size, size, 3).

    The longer side is scaled to `size` and the rest padded with black: stretching to a square would
    change what is measured (taller than wide is a sign of malignancy). Transparent pixels become black
    too, so that a cut-out surround and the padding look alike, as around an ultrasound sector. Grey
    beyond 8 bits is scaled by its own smallest and largest value, for 12-bit values in a 16-bit file
    would otherwise come out black. EXIF rotation is applied. Of several frames or pages the first is taken. DICOM
    files come out as `dicom.read_dicom` says.

    Raises ImageError for a missing, empty, damaged or truncated file, for one that is not an image, and
    for one of more than `pixel_limit` pixels.
    """
    return _letterbox(_read(data, pixel_limit, size), size)


def decode_whole(data: bytes | Path, pixel_limit: int = PIXEL_LIMIT) -> NDArray[np.uint8]:
    """One image file as uint8 (H, W, 3), at its own size, and otherwise as `decode`; raises as that does."""
    return np.asarray(_read(data, pixel_limit))


def _read(data: bytes | Path, pixel_limit: int, size: int | None = None) -> Image.Image:
    """The image, RGB and upright, not much larger than `size` where the format allows. Raises as `decode`."""
    others = Image.MAX_IMAGE_PIXELS
    try:
        content = data if isinstance(data, bytes) else data.read_bytes()
        if not content:
            raise ImageError("the file is empty")
        Image.MAX_IMAGE_PIXELS = pixel_limit  # Pillow refuses twice as much, also of what lies inside a file
        if is_dicom(content):
            return read_dicom(content, pixel_limit)
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            for width, height in (image.size, _tile(image)):
                if width * height > pixel_limit:
                    raise ImageError(f"the image has {width} x {height} pixels, more than the limit of {pixel_limit:,}")
            if size is not None:
                # Lets the JPEG decoder skip detail beyond twice the size that is wanted.
                image.draft(image.mode, (2 * size, 2 * size))
            image.load()
            return _rgb(ImageOps.exif_transpose(image))
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError("the file is missing") from error
    except UnidentifiedImageError as error:
        raise ImageError("the file is not an image of a known format") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"the image has more pixels than the limit of {pixel_limit:,}") from error
    except _DAMAGED as error:
        raise ImageError(f"the image is damaged or cut short ({error})") from error
    finally:
        Image.MAX_IMAGE_PIXELS = others  # other readers of this process have limits of their own


def _tile(image: Image.Image) -> tuple[int, int]:
    """A TIFF's tiles are unpacked whole, however small the image is."""
    tags = getattr(image, "tag_v2", {})
    return int(tags.get(TILE_WIDTH, 0)), int(tags.get(TILE_LENGTH, 0))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        pixels = np.asarray(image)
        return Image.fromarray(eight_bits(pixels, stretch(*extremes(pixels)))).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, (0, 0, 0, 255)), layer).convert("RGB")
    return image.convert("RGB")


def _letterbox(image: Image.Image, size: int) -> NDArray[np.uint8]:
    scale = size / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    canvas = Image.new("RGB", (size, size))
    canvas.paste(image.resize((width, height), Image.Resampling.BILINEAR), ((size - width) // 2, (size - height) // 2))
    return np.asarray(canvas)
