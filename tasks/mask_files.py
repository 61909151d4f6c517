"""Masks kept as images: 0 outside, k inside the control's class number k, counted from 1."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

SIDEWAYS = range(5, 9)  # the values of EXIF's orientation that swap width and height
ORIENTATION = 0x0112


class MaskError(ValueError):
    """The file is no mask of that image; the message says why."""


def read_mask(path: Path, classes: int, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """The masks uint8 (C, H, W) of an image file, 1 inside a class.

    Of one class any value but 0 is inside, in any channel but transparency; of several, the value is the number of the
    class. size: the (H, W) that it must have; None: any. Raises MaskError for a file that cannot be read, is of another
    size, or holds a number that no class has.
    """
    try:
        with Image.open(path) as image:
            if size is not None and (image.height, image.width) != size:
                raise MaskError(f"it has {image.width} x {image.height} pixels, and the image {size[1]} x {size[0]}")
            values = np.asarray(image if image.mode in ("P", "L", "1", "I", "I;16") else image.convert("RGB"))
    except FileNotFoundError as error:
        raise MaskError("there is no such file") from error
    except UnidentifiedImageError as error:
        raise MaskError("it is no image") from error
    except Image.DecompressionBombError as error:
        raise MaskError("it has more pixels than are unpacked") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise error if isinstance(error, MaskError) else MaskError(f"it cannot be read ({error})") from error
    if classes == 1:
        inside = (values != 0).reshape(*values.shape[:2], -1).any(axis=2)
        return np.asarray(inside[None], dtype=np.uint8)
    if values.ndim == 3:
        raise MaskError(f"it is in colour: with {classes} classes a pixel holds the number of its class")
    if values.max(initial=0) > classes:
        raise MaskError(f"it holds the value {values.max()}, and there are {classes} classes")
    planes: NDArray[np.uint8] = (values == np.arange(1, classes + 1)[:, None, None]).astype(np.uint8)
    return planes


def size_of(path: Path) -> tuple[int, int] | None:
    """The (H, W) of an image file as it is shown; None where Pillow does not say it: DICOM, or beyond its limit."""
    try:
        with Image.open(path) as image:
            sideways = image.getexif().get(ORIENTATION) in SIDEWAYS
            return (image.width, image.height) if sideways else (image.height, image.width)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError):
        return None
