"""IDX, the file format of the MNIST family: a strict reader, so that a broken file is never trained on.

A file is a magic number (two zero bytes, the element type, the number of axes), one big-endian
32-bit size per axis, and the elements in C order. Files may be gzipped, as they are distributed.
Format: http://yann.lecun.com/exdb/mnist/ ("The IDX file format").
"""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.sets.memory import available_bytes
from pipeline.errors import UserError
from pipeline.ordinary_files import DATA_BYTES, read_whole

GZIP_MAGIC = b"\x1f\x8b"
UINT8 = 0x08
MAX_AXES = 3


def read_idx(path: Any, axes: int) -> NDArray[np.uint8]:
    """Read one IDX file of unsigned bytes, gzipped or not.

    Args:
        path: a `Path` or anything with `read_bytes` (a file inside a package).
        axes: how many axes the file must have; 3 for images `[N, H, W]`, 1 for labels `[N]`.

    Raises:
        UserError: the file is missing, not IDX, of another element type or number of axes, truncated, or too long.
    """
    content = _content(path)
    start = 4 + 4 * axes
    if len(content) < start or content[:2] != b"\x00\x00":
        raise UserError(f"'{path}' is not an IDX file: it does not start with two zero bytes and a header. {_remedy()}")
    element, file_axes = content[2], content[3]
    if element != UINT8 or file_axes != axes:
        raise UserError(
            f"'{path}' holds elements of type 0x{element:02x} along {file_axes} axes, "
            f"not unsigned bytes (0x{UINT8:02x}) along {axes}. {_remedy()}"
        )
    shape = struct.unpack(f">{axes}I", content[4:start])
    expected = prod(shape)
    if len(content) - start != expected:
        sizes = " x ".join(str(size) for size in shape)
        raise UserError(
            f"'{path}' announces {sizes} = {expected} bytes and holds {len(content) - start}: "
            f"it is damaged or was cut short. {_remedy()}"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def read_pair(images_path: Any, labels_path: Any) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read images `[N, H, W]` and their labels `[N]`; raises `UserError` if the counts differ."""
    images, labels = read_idx(images_path, axes=3), read_idx(labels_path, axes=1)
    if len(images) != len(labels):
        raise UserError(
            f"'{images_path}' holds {len(images)} images but '{labels_path}' {len(labels)} labels. "
            "Take both files from the same release"
        )
    return images, labels.astype(np.int64)


def find_idx(folder: Path, stem: str) -> Path | None:
    """The file `stem` in `folder`, gzipped or not; None if there is neither."""
    candidates = (folder / f"{stem}.gz", folder / stem)
    return next((path for path in candidates if path.is_file()), None)


def _content(path: Any) -> bytes:
    if isinstance(path, str):
        path = Path(path)
    try:
        content: bytes = read_whole(path, DATA_BYTES) if isinstance(path, Path) else path.read_bytes()
    except OSError as error:
        raise UserError(f"'{path}' cannot be read ({error.strerror or error}). {_remedy()}") from None
    if content[:2] != GZIP_MAGIC:
        return content
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            return _read_announced_size(file)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"'{path}' is not a whole gzip file ({error}). {_remedy()}") from None


def _read_announced_size(file: gzip.GzipFile) -> bytes:
    """The unpacked content, read to at most one byte past the announced size: a small file can unpack to any size."""
    header = file.read(4 + 4 * MAX_AXES)
    if len(header) < 4:
        return header
    axes = min(header[3], MAX_AXES)
    start = 4 + 4 * axes
    expected = prod(struct.unpack_from(f">{axes}I", header.ljust(start, b"\0"), 4))
    room = available_bytes() or DATA_BYTES
    if expected > room:
        raise EOFError(f"it announces {expected} bytes, and {room} bytes of memory are available")
    return header + file.read(max(start + expected + 1 - len(header), 0))


def _remedy() -> str:
    return "Fetch the file again from where the data set is published"
