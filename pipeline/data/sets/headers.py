"""Reads the header of every image file: height and width, or why it is no image.

Headers are read once, before a run starts, so that a file that is empty, no image or far too large is named then and
not hours later. A header says nothing about the data behind it: a truncated file is found when it is decoded.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pipeline.data.sets.decoding import MAX_PIXELS, TOO_LARGE, decode_error, open_image
from pipeline.data.sets.files import FileNames, Progress, for_each_block, open_file, read_error
from pipeline.data.sets.jpeg_header import SIDEWAYS, orientation_of, read_header
from pipeline.errors import UserError, reason_of

HEAD_BYTES = 4096
"""Bytes of a file that are read first: enough for the header of most JPEGs, and a page of most file systems."""


@dataclass(frozen=True)
class Headers:
    """The headers of the N files of a data set, as arrays `[N]`.

    Args:
        nbytes: size of the files, int64.
        heights: in pixels, upright (Exif orientation applied), int32; 0 where the header cannot be read.
        widths: likewise.
        problems: by the index of a file that is no image, ascending: the error message, which names the file.
    """

    nbytes: NDArray[np.int64]
    heights: NDArray[np.int32]
    widths: NDArray[np.int32]
    problems: dict[int, str]


def scan_headers(files: FileNames, progress: Progress | None = None) -> Headers:
    """Read the header of every file, in threads; raises `UserError` naming a file that is gone or cannot be opened."""
    count = len(files)
    headers = Headers(np.zeros(count, np.int64), np.zeros(count, np.int32), np.zeros(count, np.int32), {})

    def look(start: int, stop: int) -> None:
        for index, name in enumerate(files.relatives(start, stop), start):
            path = os.path.join(files.root, name)
            try:
                headers.nbytes[index], headers.heights[index], headers.widths[index] = read_size(path)
            except NoImage as error:
                headers.nbytes[index], headers.problems[index] = error.nbytes, str(error)

    for_each_block(look, count, progress)
    return Headers(headers.nbytes, headers.heights, headers.widths, dict(sorted(headers.problems.items())))


class NoImage(UserError):
    """A file whose header cannot be read.

    Args:
        error: the error message for the user.
        nbytes: size of the file.
    """

    def __init__(self, error: UserError, nbytes: int) -> None:
        super().__init__(str(error))
        self.nbytes = nbytes


def read_size(path: str) -> tuple[int, int, int]:
    """Bytes of an image file, and height and width of the upright image in pixels.

    Raises:
        NoImage: the file is empty, no image, or announces more pixels than are ever decoded.
        UserError: the file is gone, or cannot be opened.
    """
    nbytes = 0
    try:
        with open_file(path) as file:
            nbytes = os.fstat(file.fileno()).st_size
            header = read_header(file.read(HEAD_BYTES)) if nbytes else None
            if header is not None:
                sides = _upright(header.height, header.width, header.orientation)
            else:
                file.seek(0)
                with open_image(file) as image:
                    sides = _upright(image.height, image.width, _orientation(image))
    except UnidentifiedImageError:
        reason = "not an image that can be read" if nbytes else "the file is empty"
        raise NoImage(decode_error(path, reason), nbytes) from None
    except Image.DecompressionBombError:
        raise NoImage(decode_error(path, TOO_LARGE), nbytes) from None
    except OSError as error:
        if error.errno is not None:
            raise NoImage(read_error(path, error), nbytes) from None
        raise NoImage(decode_error(path, str(error)), nbytes) from None
    except Exception as error:  # PIL's decoders raise whatever a damaged file leads them to
        raise NoImage(decode_error(path, reason_of(error)), nbytes) from None
    if sides[0] * sides[1] > MAX_PIXELS:
        raise NoImage(decode_error(path, TOO_LARGE), nbytes)
    if not sides[0] * sides[1]:
        raise NoImage(decode_error(path, "it announces no pixels"), nbytes)
    return nbytes, *sides


def _orientation(image: Image.Image) -> int:
    """The Exif orientation. For PNG only what precedes the pixels counts, because PIL would decode them to read on.

    PIL applies the orientation of a TIFF itself.
    """
    if image.format == "TIFF":
        return 1
    return orientation_of(image.info.get("exif", b"") if image.format == "PNG" else image)


def _upright(height: int, width: int, orientation: int) -> tuple[int, int]:
    return (width, height) if orientation in SIDEWAYS else (height, width)
