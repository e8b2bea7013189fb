"""Encoded images to pixels: JPEG by libjpeg-turbo without the detour through PIL, everything else by PIL.

simplejpeg (or OpenCV, where simplejpeg is not installed) returns the same bits as PIL. Both decode only complete
files of the common kinds; every other file goes to PIL, which alone decides what is damaged. Images are upright:
the Exif orientation has been applied.
"""

from __future__ import annotations

import io
import re
import warnings
from importlib import import_module
from importlib.util import find_spec
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pipeline.data.sets.jpeg_header import MAGIC, SIDEWAYS, JpegHeader, orientation_of, read_header
from pipeline.errors import UserError, reason_of

MAX_PIXELS = 178_956_970
"""Images of more pixels are refused: a small file that announces them can fill the memory. PIL's limit."""
TOO_LARGE = f"it announces more than {MAX_PIXELS} pixels, as files made to fill the memory do"
REPLACE = ". Replace or remove the file"
"""The remedy at the end of a message about a file that cannot be decoded."""
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP")
"""PIL's names for the formats of `folder_walk.EXTENSIONS`; PGM is part of PPM."""
END_OF_IMAGE = b"\xff\xd9"
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""The marker that ends the compressed data: a byte 0xff that is neither stuffed nor a restart marker."""
_GRAY = ("L", "1", "LA", "La")
_simplejpeg: Any = import_module("simplejpeg") if find_spec("simplejpeg") else None


def decode(data: bytes | memoryview, name: str) -> NDArray[np.uint8]:
    """Decode a file.

    Transparency is dropped, CMYK becomes RGB as PIL converts it, and 16 bits of gray are scaled to 8.

    Args:
        data: all bytes of the file.
        name: its name in messages: the path.

    Returns:
        Contiguous pixels, upright: `[H, W]` of a gray image, `[H, W, 3]` (RGB) of any other.

    Raises:
        UserError: the file is empty, truncated, damaged, no image, or has too many pixels; the message has `name`.
    """
    if len(data) == 0:
        raise decode_error(name, "the file is empty")
    if data[:3] == MAGIC:
        header = read_header(data)
        pixels = None if header is None else _decode_jpeg(data, header)
        if header is not None and pixels is not None:
            return upright(pixels, header.orientation)
    return _decode_with_pil(data, name)


def open_image(file: BinaryIO) -> Image.Image:
    """Read the header of an image of one of `FORMATS`; raises what PIL raises.

    PIL supports forty more formats and goes by the content, not by the name: it would pass PostScript in a file named
    `.jpg` to Ghostscript, which can run programs.
    """
    return Image.open(file, formats=FORMATS)


def silence_size_warnings() -> None:
    """Silence PIL's warnings, in this process, about images with half as many pixels as are refused here."""
    warnings.filterwarnings("ignore", message="Image size .* could be decompression bomb")


def decode_error(name: str, reason: object) -> UserError:
    """The error for a file that cannot be decoded."""
    return UserError(f"image '{name}' cannot be decoded ({reason}){REPLACE}")


def upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Turn and mirror `[H, W, ...]` as the Exif orientation (1 to 8) asks; contiguous."""
    if orientation == 1:
        return pixels
    if orientation in SIDEWAYS:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _decode_jpeg(data: bytes | memoryview, header: JpegHeader) -> NDArray[np.uint8] | None:
    """Pixels as stored; None for files that PIL must decode: unusual kinds, huge ones, and all that may be damaged."""
    if header.components not in (1, 3) or header.bits != 8 or not 0 < header.height * header.width <= MAX_PIXELS:
        return None
    gray = header.components == 1
    return _with_opencv(data, header, gray) if _simplejpeg is None else _with_simplejpeg(data, gray)


def _with_simplejpeg(data: bytes | memoryview, gray: bool) -> NDArray[np.uint8] | None:
    try:
        # strict: a file that was cut short, or over which libjpeg stumbles, raises instead of ending in gray
        pixels: NDArray[np.uint8] = _simplejpeg.decode_jpeg(data, "GRAY" if gray else "RGB", strict=True)
    except (ValueError, MemoryError):
        return None
    return pixels[..., 0] if gray else pixels


def _with_opencv(data: bytes | memoryview, header: JpegHeader, gray: bool) -> NDArray[np.uint8] | None:
    end = _MARKER.search(data, header.scan)
    if end is None or end[0] != END_OF_IMAGE:  # OpenCV fills in what is missing or broken, without an error
        return None
    import cv2

    kind = cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), kind | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None
    if decoded is None:
        return None
    pixels = decoded if gray else cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB, dst=decoded)
    return np.asarray(pixels, dtype=np.uint8)


def _decode_with_pil(data: bytes | memoryview, name: str) -> NDArray[np.uint8]:
    try:
        with open_image(io.BytesIO(data)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError(f"it announces {image.width} x {image.height} pixels")
            image.load()
            pixels = _to_bytes(image)
            return upright(np.ascontiguousarray(pixels), orientation_of(image))
    except UnidentifiedImageError:
        raise decode_error(name, "not an image that can be read") from None
    except Image.DecompressionBombError:
        raise decode_error(name, TOO_LARGE) from None
    except Exception as error:  # PIL's decoders raise whatever a damaged file leads them to
        raise decode_error(name, reason_of(error)) from None


def _to_bytes(image: Image.Image) -> NDArray[np.uint8]:
    """`[H, W]` or `[H, W, 3]`."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _from_deep(image)
    if image.mode in _GRAY:
        return np.asarray(image.convert("L"))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # the same colours; PIL warns of the direct way
    return np.asarray(image.convert("RGB"))


def _from_deep(image: Image.Image) -> NDArray[np.uint8]:
    """Gray of 16 bits, scaled: PIL's own conversion cuts everything above 255 off."""
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise ValueError(f"gray values of {values.dtype} from {values.min()} to {values.max()} have no known range")
    return ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
