import io
import json
import multiprocessing
import resource
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from backend.learning.decode import ImageError, decode, decode_whole

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


def test_other_formats_are_not_tried() -> None:
    with pytest.raises(ImageError, match="not an image of a known format"):
        decode(encoded(GREY, "EPS"), 32)  # Pillow would start Ghostscript


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + b"".join([header, *chunks, chunk(b"IEND", b"")])


def animated_webp(side: int) -> bytes:
    """A WebP whose canvas is `side` wide and high, with one frame of 80 x 40."""
    still = encoded(GREY.convert("RGB"), "WEBP", lossless=True)[12:]
    size = (side - 1).to_bytes(3, "little")
    frame = bytes(6) + (79).to_bytes(3, "little") + (39).to_bytes(3, "little") + bytes(4) + still
    body = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + size * 2
    body += b"ANIM" + struct.pack("<I", 6) + bytes(6) + b"ANMF" + struct.pack("<I", len(frame)) + frame
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def tiff(**tags: int) -> bytes:
    """A TIFF of one deflated tile or strip of zeros and these tags over those of 16 x 16 grey pixels."""
    content = zlib.compress(bytes(10**8), 9)
    numbers = {"width": 256, "height": 257, "bits": 258, "compression": 259, "photometric": 262, "offset": 273}
    numbers |= {"rows": 278, "length": 279, "tile_width": 322, "tile_height": 323, "tile": 324, "tile_length": 325}
    given = {"width": 16, "height": 16, "bits": 8, "compression": 8, "photometric": 1} | tags
    place, size = ("tile", "tile_length") if "tile_width" in tags else ("offset", "length")
    given |= {place: 8, size: len(content)}
    entries = b"".join(
        struct.pack("<HHII", number, 4, 1, given[name]) for name, number in numbers.items() if name in given
    )
    directory = struct.pack("<H", len(given)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(content)) + content + directory


ZEROS = zlib.compress(bytes(10**8), 9)
BOMBS = {
    "PNG": png(60_000, 60_000, chunk(b"IDAT", ZEROS)),
    "PNG text": png(16, 16, *[chunk(b"zTXt", b"Comment\0\0" + ZEROS)] * 20),
    "PNG text, many": png(16, 16, *[chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(10**6)))] * 2000),
    "PNG profile": png(16, 16, chunk(b"iCCP", b"profile\0\0" + ZEROS)),
    "PNG with more pixels than it says": png(16, 16, chunk(b"IDAT", ZEROS)),
    "GIF": FILES["GIF"][:6] + b"\xff\xff\xff\xff" + FILES["GIF"][10:],
    "BMP": encoded(GREY, "BMP")[:18] + struct.pack("<ii", 50_000, 50_000) + encoded(GREY, "BMP")[26:],
    "WebP": animated_webp(16_383),
    "TIFF": tiff(width=60_000, height=60_000, rows=60_000),
    "TIFF strip": tiff(rows=2**31 - 1),
    "TIFF tile": tiff(tile_width=2**15, tile_height=2**15),
    "TIFF tiles beyond counting": tiff(tile_width=2**31 - 16, tile_height=2**31 - 16),
    "many frames": encoded(
        GREY, "GIF", save_all=True, append_images=[Image.new("L", GREY.size, i) for i in range(200)]
    ),
}


def peak(path: Path, limit: int) -> None:
    """In a process of its own: what decoding the file at `path` takes of memory, written beside it."""
    decode(FILES["rgb"], 32)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        decode(path, 32, pixel_limit=limit)
        outcome = "decoded"
    except ImageError as error:
        outcome = str(error)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    path.with_suffix(".json").write_text(json.dumps({"outcome": outcome, "MB": (after - before) / 1024}))


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_take_no_memory_and_cost_only_themselves(name: str, tmp_path: Path) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(BOMBS[name])
    worker = multiprocessing.get_context("fork").Process(target=peak, args=(path, 1_000_000))
    worker.start()
    worker.join(60)
    assert worker.exitcode == 0
    found = json.loads(path.with_suffix(".json").read_text())
    assert found["MB"] < 100, found


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_of_several_frames_or_pages_the_first_is_taken(kind: str) -> None:
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "lime", "blue")]
    pixels = decode(encoded(frames[0], kind, save_all=True, append_images=frames[1:]), 32)
    assert np.abs(pixels[16, 16].astype(int) - (255, 0, 0)).max() <= 4


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


def test_whole_images_keep_their_size():
    pixels = np.random.default_rng(0).integers(0, 256, (37, 61, 3), dtype=np.uint8)
    file = encoded(Image.fromarray(pixels))
    np.testing.assert_array_equal(decode_whole(file), pixels)
    limit = Image.MAX_IMAGE_PIXELS
    with pytest.raises(ImageError, match="more than the limit of 2,000"):
        decode_whole(file, 2000)
    assert limit == Image.MAX_IMAGE_PIXELS
