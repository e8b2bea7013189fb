"""Headers of image files: height and width without decoding, and a name for every file that is no image."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data.sets import files as image_files
from pipeline.data.sets.decoding import decode
from pipeline.data.sets.files import FileNames
from pipeline.data.sets.headers import read_size, scan_headers
from pipeline.errors import UserError

HEIGHT, WIDTH = 9, 14
EXTENSIONS = ("jpg", "png", "bmp", "ppm", "tif", "webp")


def picture(channels: int = 3) -> Image.Image:
    shape = (HEIGHT, WIDTH, channels) if channels > 1 else (HEIGHT, WIDTH)
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


def oriented(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_every_format(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"x.{extension}"
    picture().save(path)
    assert read_size(str(path)) == (path.stat().st_size, HEIGHT, WIDTH)


@pytest.mark.parametrize("extension", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_sides_are_those_of_the_decoded_image(tmp_path: Path, extension: str, orientation: int) -> None:
    path = tmp_path / f"x.{extension}"
    picture().save(path, exif=oriented(orientation))
    assert read_size(str(path))[1:] == decode(path.read_bytes(), "x").shape[:2]


def test_a_long_front_of_a_jpeg(tmp_path: Path) -> None:
    """Profiles and thumbnails put the size of many photographs beyond the bytes that are read first."""
    path = tmp_path / "x.jpg"
    picture().save(path, exif=oriented(6), icc_profile=bytes(50_000))
    assert read_size(str(path))[1:] == (WIDTH, HEIGHT)


def huge_png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    front = struct.pack(">IIBBBBB", 15_000, 15_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", front) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def tall_jpeg() -> bytes:
    from io import BytesIO

    buffer = BytesIO()
    picture().save(buffer, "jpeg")
    data = bytearray(buffer.getvalue())
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 65_000, 65_000)
    return bytes(data)


BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", r"\(the file is empty\)"),
    "text": (lambda: b"not an image", r"\(not an image that can be read\)"),
    "front only": (lambda: b"\xff\xd8\xff\xe0", r"\("),
    "huge PNG": (huge_png, r"\(it announces more than 178956970 pixels"),
    "huge JPEG": (tall_jpeg, r"\(it announces more than 178956970 pixels"),
}


@pytest.mark.parametrize(("make", "words"), BAD.values(), ids=list(BAD))
def test_what_is_no_image(tmp_path: Path, make: Callable[[], bytes], words: str) -> None:
    path = tmp_path / "bad.jpg"
    path.write_bytes(make())
    with pytest.raises(UserError, match=r"^image '.*bad\.jpg' cannot be decoded " + words):
        read_size(str(path))
    picture().save(tmp_path / "good.png")
    found = scan_headers(FileNames.of(str(tmp_path), ["bad.jpg", "good.png"]))
    assert list(found.problems) == [0]
    assert found.nbytes.tolist() == [path.stat().st_size, (tmp_path / "good.png").stat().st_size]
    assert (found.heights.tolist(), found.widths.tolist()) == ([0, HEIGHT], [0, WIDTH])


def test_many_files_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_files, "BLOCK", 4)
    names = [f"{number}.png" for number in range(21)]
    for number, name in enumerate(names, 1):
        Image.new("L", (number, 2 * number)).save(tmp_path / name)
    for name in (names[20], names[3]):
        (tmp_path / name).write_bytes(b"")
    seen: list[tuple[int, int]] = []
    found = scan_headers(FileNames.of(str(tmp_path), names), lambda *done: seen.append(done))
    assert list(found.problems) == [3, 20]
    expected = [0 if number in (4, 21) else number for number in range(1, 22)]
    assert found.widths.tolist() == expected
    assert found.heights.tolist() == [2 * width for width in expected]
    assert seen[-1] == (21, 21)


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    found = scan_headers(FileNames.of(str(tmp_path), ["gone.png"]))
    assert re.match(r"image '.*gone\.png' does not exist any more", found.problems[0])
