"""Decoding: PIL's bits without PIL for JPEG, upright, and one message for everything that cannot be trained on."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageOps

from pipeline.data.sets import decoding
from pipeline.data.sets.decoding import decode
from pipeline.data.sets.jpeg_header import read_header
from pipeline.errors import UserError


def picture(height: int = 75, width: int = 101, channels: int = 3) -> Image.Image:
    rng = np.random.default_rng(height)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize((width, height))
    grain = rng.integers(-9, 10, (height, width, 3))
    image = Image.fromarray((np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8))
    return image if channels == 3 else image.convert("L")


def encoded(image: Image.Image, kind: str = "JPEG", **keys: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **keys)
    return buffer.getvalue()


def as_pil(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image if image.mode == "L" else image.convert("RGB"))


@pytest.fixture(params=["simplejpeg", "opencv"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Either of the two that decode JPEG."""
    if request.param == "opencv":
        monkeypatch.setattr(decoding, "_simplejpeg", None)
    else:
        assert decoding._simplejpeg is not None
    return str(request.param)


def no_detour(*_: object) -> None:
    raise AssertionError("this image needs no PIL")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "keys",
    [
        {"quality": 90}, {"quality": 60, "subsampling": 0}, {"quality": 75, "subsampling": 1},
        {"quality": 85, "progressive": True}, {"quality": 95, "optimize": True}, {"keep_rgb": True},
        {"restart_marker_rows": 1},
    ],
)  # fmt: skip
@pytest.mark.parametrize("size", [(75, 101), (1, 1), (3, 200), (64, 64)])
def test_jpeg_has_the_bits_of_pil(
    decoder: str, monkeypatch: pytest.MonkeyPatch, keys: dict[str, object], channels: int, size: tuple[int, int]
) -> None:
    if decoder == "simplejpeg" or "progressive" not in keys:  # of several scans, OpenCV would not tell what is missing
        monkeypatch.setattr(decoding, "_decode_with_pil", no_detour)
    data = encoded(picture(*size, channels), **keys)
    for given in (data, memoryview(data), data + b"bytes that do not belong to the image"):
        pixels = decode(given, "x.jpg")
        assert pixels.flags.c_contiguous
        assert pixels.dtype == np.uint8
        np.testing.assert_array_equal(pixels, as_pil(data))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_upright(decoder: str, kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(picture(), kind, exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    pixels = decode(data, "x")
    assert pixels.flags.c_contiguous
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_exif_that_cannot_be_read_does_no_harm(decoder: str) -> None:
    plain = encoded(picture())
    for exif in (b"", b"MM\x00*", b"II*\x00\xff\xff\xff\xff", b"MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x02"):
        segment = b"Exif\x00\x00" + exif
        data = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + plain[2:]
        np.testing.assert_array_equal(decode(data, "x"), as_pil(plain))


def with_transparency(mode: str) -> Image.Image:
    image = picture().convert("RGBA")
    image.putalpha(Image.fromarray(np.tile(np.arange(101, dtype=np.uint8), (75, 1))))
    return image if mode == "RGBA" else image.convert("LA")


@pytest.mark.parametrize(
    ("make", "kind", "keys"),
    [
        (lambda: picture().convert("CMYK"), "JPEG", {}),
        (lambda: with_transparency("RGBA"), "PNG", {}),
        (lambda: with_transparency("LA"), "PNG", {}),
        (lambda: picture().convert("1"), "PNG", {}),
        (lambda: picture().convert("P"), "PNG", {}),
        (lambda: picture().quantize(8), "PNG", {"transparency": bytes([0, 9, 255, 3])}),
        (lambda: picture().quantize(8), "PNG", {"transparency": 2}),
        (lambda: picture().convert("YCbCr"), "TIFF", {"compression": "raw"}),
        (lambda: picture(channels=1), "PNG", {}),
        (picture, "PPM", {}),
        (picture, "BMP", {}),
    ],
)
@pytest.mark.filterwarnings("error")
def test_other_kinds_become_what_pil_makes_of_them(
    make: Callable[[], Image.Image], kind: str, keys: dict[str, object]
) -> None:
    data = encoded(make(), kind, **keys)
    with Image.open(io.BytesIO(data)) as image:
        straight = image.convert("RGBA").convert("RGB") if image.mode == "P" else image.convert("RGB")
    pixels = decode(data, "x")
    shown = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
    np.testing.assert_array_equal(shown, np.asarray(straight))


def test_gray_stays_gray() -> None:
    for image in (picture(channels=1), picture(channels=1).convert("1"), with_transparency("LA")):
        assert decode(encoded(image, "PNG"), "x").shape == (75, 101)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_and_not_cut_off(kind: str) -> None:
    deep = np.asarray([[0, 128, 129, 257], [514, 32896, 65406, 65535]], np.uint16)
    pixels = decode(encoded(Image.fromarray(deep), kind), "x")
    np.testing.assert_array_equal(pixels, [[0, 0, 1, 1], [2, 128, 254, 255]])


def test_gray_values_without_a_known_range_are_refused() -> None:
    for values in (np.asarray([[0.5]], np.float32), np.asarray([[70_000]], np.int32), np.asarray([[-1]], np.int32)):
        with pytest.raises(UserError, match=r"'x\.tif' cannot be decoded \(gray values of .* no known range\)"):
            decode(encoded(Image.fromarray(values), "TIFF"), "x.tif")


def thumbnailed() -> bytes:
    """A JPEG whose Exif holds a whole JPEG of its own, as cameras write it."""
    plain, inner = encoded(picture()), b"Exif\x00\x00" + encoded(picture(8, 8))
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(inner) + 2) + inner + plain[2:]


@pytest.mark.parametrize("make", [lambda: encoded(picture()), thumbnailed, lambda: encoded(picture(), "PNG")])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.99])
def test_a_file_that_was_cut_short_is_refused(decoder: str, make: Callable[[], bytes], kept: float) -> None:
    data = make()
    with pytest.raises(UserError, match=r"^image 'some/x' cannot be decoded \(.+\)\. Replace or remove the file$"):
        decode(data[: int(len(data) * kept)], "some/x")


@pytest.mark.parametrize("missing", [1, 2, 3, 40])
def test_the_last_bytes_count(decoder: str, missing: int) -> None:
    with pytest.raises(UserError, match="truncated"):
        decode(encoded(picture())[:-missing], "x")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"no image at all", "not an image that can be read"),
        (b"\xff\xd8\xff", r".+"),
        (b"\xff\xd8\xff\xe0\x00\x00" + bytes(30), r".+"),
    ],
)
def test_what_is_no_image(data: bytes, reason: str) -> None:
    with pytest.raises(UserError, match=rf"image 'x' cannot be decoded \({reason}\)"):
        decode(data, "x")


def png_that_announces(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def jpeg_that_announces(width: int, height: int) -> bytes:
    data = bytearray(encoded(picture()))
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize("make", [png_that_announces, jpeg_that_announces])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_decompression_bombs_are_refused(decoder: str, make: Callable[[int, int], bytes]) -> None:
    with pytest.raises(UserError, match=r"cannot be decoded \(it announces more than 178956970 pixels"):
        decode(make(60_000, 60_000), "x")


def test_damage_in_the_middle_is_pils_to_judge(decoder: str) -> None:
    """Bits that fell over: both decoders give what PIL gives, or refuse what PIL refuses."""
    rng = np.random.default_rng(3)
    data = encoded(picture())
    header = read_header(data)
    assert header is not None
    for start in (header.scan, 2):
        for _ in range(150):
            broken = bytearray(data)
            broken[int(rng.integers(start, len(data) - 2))] ^= 1 << int(rng.integers(8))
            try:
                expected = as_pil(bytes(broken))
            except Exception:
                with pytest.raises(UserError):
                    decode(bytes(broken), "x")
                continue
            np.testing.assert_array_equal(decode(bytes(broken), "x"), expected)


def test_header() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    found = read_header(encoded(picture(), exif=exif))
    assert found is not None
    assert (found.height, found.width, found.components, found.bits, found.orientation) == (75, 101, 3, 8, 6)
    assert read_header(encoded(picture(channels=1)))
    assert read_header(encoded(picture(), "PNG")) is None
    data = encoded(picture())
    assert read_header(data[: found.scan // 2]) is None
