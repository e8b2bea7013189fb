"""What the header of every image file says: its height and width, and whether it is an image at all.

Looked at once, before a run starts, so that a file that is empty, no image or far too large is named then and not
hours later. A header says nothing about the data behind it: a file that was cut short shows when it is decoded.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pipeline.data.sets.decoding import MAX_PIXELS, TOO_LARGE, open_image, undecodable
from pipeline.data.sets.files import FileNames, Progress, for_each_block, open_file, unreadable
from pipeline.data.sets.jpeg_header import SIDEWAYS, orientation_of, read_header
from pipeline.errors import UserError, reason_of

HEAD_BYTES = 4096
"""Of a file that are read first: enough for the header of most JPEGs, and a page of most file systems."""


@dataclass(frozen=True)
class Headers:
    """Of the files of a data set, `[N]` each.

    Args:
        nbytes: size of the files, int64.
        heights: in pixels, upright (Exif orientation applied), int32; 0 where the header cannot be read.
        widths: likewise.
        problems: numbers of the files that are no images, in order, with what is wrong, naming the file.
    """

    nbytes: NDArray[np.int64]
    heights: NDArray[np.int32]
    widths: NDArray[np.int32]
    problems: dict[int, str]


def scan_headers(files: FileNames, progress: Progress | None = None) -> Headers:
    """Read the header of every file, in threads; raises `UserError` naming a file that is gone or cannot be opened."""
    count = len(files)
    found = Headers(np.zeros(count, np.int64), np.zeros(count, np.int32), np.zeros(count, np.int32), {})

    def look(start: int, stop: int) -> None:
        for index, name in enumerate(files.relatives(start, stop), start):
            path = os.path.join(files.root, name)
            try:
                found.nbytes[index], found.heights[index], found.widths[index] = read_size(path)
            except NoImage as error:
                found.nbytes[index], found.problems[index] = error.nbytes, str(error)

    for_each_block(look, count, progress)
    return Headers(found.nbytes, found.heights, found.widths, dict(sorted(found.problems.items())))


class NoImage(UserError):
    """A file whose header cannot be read.

    Args:
        error: what is wrong, in words.
        nbytes: size of the file.
    """

    def __init__(self, error: UserError, nbytes: int) -> None:
        super().__init__(str(error))
        self.nbytes = nbytes


def read_size(path: str) -> tuple[int, int, int]:
    """Bytes of an image file, and height and width of the upright image in pixels.

    Raises:
        NoImage: it is empty, no image, or announces more pixels than are ever decoded.
        UserError: it is gone, or cannot be opened.
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
        raise NoImage(undecodable(path, reason), nbytes) from None
    except Image.DecompressionBombError:
        raise NoImage(undecodable(path, TOO_LARGE), nbytes) from None
    except OSError as error:
        if error.errno is not None:
            raise NoImage(unreadable(path, error), nbytes) from None
        raise NoImage(undecodable(path, str(error)), nbytes) from None
    except Exception as error:  # PIL's decoders raise whatever a damaged file leads them to
        raise NoImage(undecodable(path, reason_of(error)), nbytes) from None
    if sides[0] * sides[1] > MAX_PIXELS:
        raise NoImage(undecodable(path, TOO_LARGE), nbytes)
    if not sides[0] * sides[1]:
        raise NoImage(undecodable(path, "it announces no pixels"), nbytes)
    return nbytes, *sides


def _orientation(image: Image.Image) -> int:
    """Of PNG only what stands before the pixels, which PIL would decode to look behind them; TIFF it turns itself."""
    if image.format == "TIFF":
        return 1
    return orientation_of(image.info.get("exif", b"") if image.format == "PNG" else image)


def _upright(height: int, width: int, orientation: int) -> tuple[int, int]:
    return (width, height) if orientation in SIDEWAYS else (height, width)
