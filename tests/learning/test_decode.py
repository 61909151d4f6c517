import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from backend.learning.decode import ImageError, decode

WIDE = np.linspace(0, 255, 40 * 80).reshape(40, 80)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


GREY = Image.fromarray(WIDE.astype(np.uint8))
SIXTEEN = Image.fromarray((WIDE * 16).astype(np.uint16))
FILES = {
    "grey": encoded(GREY),
    "one bit": encoded(GREY.convert("1")),
    "grey with alpha": encoded(GREY.convert("LA")),
    "rgb": encoded(GREY.convert("RGB")),
    "rgba": encoded(GREY.convert("RGBA")),
    "palette": encoded(GREY.convert("RGB").quantize(32)),
    "16-bit PNG": encoded(SIXTEEN),
    "16-bit TIFF": encoded(SIXTEEN, "TIFF"),
    "32-bit TIFF": encoded(Image.fromarray((WIDE * 1000).astype(np.int32)), "TIFF"),
    "float TIFF": encoded(Image.fromarray(WIDE.astype(np.float32) / 255), "TIFF"),
    "cmyk JPEG": encoded(GREY.convert("CMYK"), "JPEG", quality=95),
    "JPEG": encoded(GREY, "JPEG", quality=95),
    "GIF": encoded(GREY, "GIF"),
    "WebP": encoded(GREY.convert("RGB"), "WEBP", lossless=True),
}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_becomes_rgb_of_one_size(name: str) -> None:
    pixels = decode(FILES[name], 40)
    assert pixels.shape == (40, 40, 3) and pixels.dtype == np.uint8
    if name != "one bit":
        # 80 x 40 fits as 40 x 20, in the middle, and still runs from dark to bright.
        assert pixels[:9].max() <= 2 and pixels[31:].max() <= 2
        assert pixels[11].mean() < 40 and pixels[28].mean() > 215


def test_16_bit_is_scaled_by_its_own_range() -> None:
    twelve_bit = decode(FILES["16-bit PNG"], 80)
    assert np.abs(twelve_bit.astype(int) - decode(FILES["grey"], 80).astype(int)).max() <= 1
    flat = decode(encoded(Image.fromarray(np.full((9, 9), 700, np.uint16))), 16)
    assert flat.max() == 0


def test_transparent_pixels_are_black() -> None:
    image = Image.new("RGBA", (10, 10), (255, 255, 255, 0))
    image.paste((0, 255, 0, 255), (0, 0, 5, 10))
    pixels = decode(encoded(image), 10)
    assert pixels[5, 1].tolist() == [0, 255, 0] and pixels[5, 8].tolist() == [0, 0, 0]


def test_exif_rotation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    turned = decode(encoded(GREY, "JPEG", exif=exif, quality=95), 80)
    upright = decode(encoded(GREY.transpose(Image.Transpose.ROTATE_270), "JPEG", quality=95), 80)
    assert np.abs(turned.astype(int) - upright.astype(int)).mean() < 2
    assert turned[:, :19].max() == 0


def test_large_jpegs_decode_alike_with_and_without_the_decoder_skipping_detail() -> None:
    large = GREY.resize((1600, 800), Image.Resampling.BICUBIC)
    difference = decode(encoded(large, "JPEG"), 64).astype(int) - decode(encoded(large), 64).astype(int)
    assert np.abs(difference).max() <= 12 and np.abs(difference).mean() < 2


def test_paths_are_read(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(FILES["grey"])
    assert np.array_equal(decode(path, 32), decode(FILES["grey"], 32))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"<html>Not found</html>", "not an image"),
        (FILES["JPEG"][: len(FILES["JPEG"]) // 2], "damaged or cut short"),
        (FILES["16-bit PNG"][: len(FILES["16-bit PNG"]) // 2], "damaged or cut short"),
        (Path("no-such-file.png"), "missing"),
    ],
)
def test_what_cannot_be_used_says_why(data: bytes | Path, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        decode(data, 32)


def test_too_many_pixels_are_refused_before_they_are_decoded() -> None:
    with pytest.raises(ImageError, match=r"80 x 40 pixels, more than the limit of 3,199"):
        decode(FILES["grey"], 32, pixel_limit=3199)
    assert decode(FILES["grey"], 32, pixel_limit=3200).any()
    bomb = encoded(Image.new("1", (30_000, 30_000)))
    with pytest.raises(ImageError, match="more pixels than the limit"):
        decode(bomb, 32)


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(sorted(FILES)),
    where=st.floats(0, 1, exclude_max=True),
    junk=st.binary(min_size=1, max_size=8),
    cut=st.booleans(),
)
def test_damage_anywhere_gives_an_image_or_a_reason(name: str, where: float, junk: bytes, cut: bool) -> None:
    data = FILES[name]
    at = int(where * len(data))
    damaged = data[:at] + junk + (b"" if cut else data[at + len(junk) :])
    try:
        assert decode(damaged, 16).shape == (16, 16, 3)
    except ImageError as error:
        assert str(error)
