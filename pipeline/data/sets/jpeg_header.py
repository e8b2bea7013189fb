"""Parses the first bytes of a JPEG file: size, components, Exif; faster than opening it as an image.

Only the segments before the first scan are read (ITU-T T.81, annex B). A header says nothing about the data behind
it, so only decoding shows whether a file is whole.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from PIL import Image

MAGIC = b"\xff\xd8\xff"
ORIENTATION = 0x0112
"""The Exif tag of the camera's orientation, 1 to 8."""
SIDEWAYS = (5, 6, 7, 8)
"""Orientations that swap height and width."""
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_ALONE = {0x01, *range(0xD0, 0xD8)}
_SCAN, _END, _APP1 = 0xDA, 0xD9, 0xE1
_EXIF = b"Exif\x00\x00"


@dataclass(frozen=True)
class JpegHeader:
    """The frame of a JPEG.

    Args:
        height: in pixels, as stored: before the orientation is applied.
        width: likewise.
        components: 1 gray, 3 colour, 4 CMYK or YCCK.
        bits: of a sample; nearly always 8.
        orientation: of Exif, 1 (upright) to 8.
        scan: offset of the compressed data in the file, in bytes.
    """

    height: int
    width: int
    components: int
    bits: int
    orientation: int
    scan: int


def read_header(data: bytes | memoryview) -> JpegHeader | None:
    """The header in the first bytes of a file; None if it is no JPEG, or if its first scan is not within `data`."""
    if data[:3] != MAGIC:
        return None
    frame: tuple[int, int, int, int] | None = None
    orientation, place, end = 1, 2, len(data)
    while place + 4 <= end and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF or marker in _ALONE:  # fill bytes, and markers without a segment
            place += 1 if marker == 0xFF else 2
            continue
        length = (data[place + 2] << 8) | data[place + 3]
        start, following = place + 4, place + 2 + length
        if marker == _END or length < 2 or following > end:
            return None
        if marker in _FRAMES and length >= 8:
            bits, height, width, components = struct.unpack_from(">BHHB", data, start)
            frame = (height, width, components, bits)
        elif marker == _APP1 and data[start : start + 6] == _EXIF:
            orientation = orientation_of(bytes(data[start:following]))
        elif marker == _SCAN:
            return None if frame is None else JpegHeader(*frame, orientation, following)
        place = following
    return None


def orientation_of(exif: bytes | Image.Image) -> int:
    """The orientation in an Exif segment, or in what PIL read from a file; 1 if there is none that can be read."""
    try:
        if isinstance(exif, Image.Image):
            orientation: Any = exif.getexif().get(ORIENTATION, 1)
        else:
            tags = Image.Exif()
            tags.load(exif)
            orientation = tags.get(ORIENTATION, 1)
    except Exception:  # cameras write Exif that raises whatever it likes; the pixels are none the worse for it
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1
