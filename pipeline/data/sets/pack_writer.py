"""Writes a packed copy of a data set, shard by shard; `packed.py` reads it.

A shard is a range of consecutive images, so that the result depends neither on the number of writing threads nor on
interruptions.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.data.npz import UNREADABLE, Expected, read_arrays
from pipeline.data.sets.datasets import ImageDataset
from pipeline.data.sets.files import FileImages, FileNames, read_file
from pipeline.data.sets.jpeg_header import SIDEWAYS, JpegHeader, read_header
from pipeline.data.sets.packed import COLUMNS, PackedFile, PackedSplit, PackSettings
from pipeline.ordinary_files import open_to_write, read_whole

IMAGES_PER_SHARD = 4096
TABLE_BYTES = 2 * IMAGES_PER_SHARD * len(COLUMNS) * 8
SAMPLES = 128
"""Images that are packed to estimate how large the copy will be."""


def write_shard(
    folder: Path,
    split: str,
    number: int,
    images: ImageDataset,
    settings: PackSettings,
    packed: Callable[[], None] = lambda: None,
) -> None:
    """Write the images of shard `number` and, after they are synced to disk, its table, which marks it as complete.

    Only one image at a time is in memory.

    Args:
        folder: the packed folder.
        split: "train" or "test".
        number: of the shard, counted from 0.
        images: all images of the split.
        settings: format and size of the packed images.
        packed: called after every image; may raise to stop.

    Raises:
        UserError: an image cannot be decoded.
        OSError: the shard cannot be written.
    """
    start = number * IMAGES_PER_SHARD
    path, place, rows = folder / shard_name(split, number), 0, []
    digest = hashlib.sha256()
    path.unlink(missing_ok=True)
    with open_to_write(path, folder, new=True) as file:
        for index in range(start, min(start + IMAGES_PER_SHARD, len(images))):
            content, (height, width, channels) = encode(images, index, settings)
            file.write(content)
            digest.update(content)
            rows.append((number, place, place + len(content), height, width, channels, images.label(index)))
            place += len(content)
            packed()
        file.flush()
        os.fsync(file.fileno())
    table = np.asarray(rows, np.int64).reshape(len(rows), len(COLUMNS))
    digest_text = np.frombuffer(digest.hexdigest().encode(), np.uint8)
    _write_arrays(table_of(folder, split, number), table=table, sha256=digest_text)


def is_complete(folder: Path, split: str, number: int) -> bool:
    """Whether `write_shard` has completed this shard and its file has not changed since."""
    try:
        size = (folder / shard_name(split, number)).stat().st_size
        table, _ = _read_table(folder, split, number)
        return bool(size == (table[-1, COLUMNS.index("end")] if len(table) else 0))
    except (*UNREADABLE, IndexError):
        return False


def write_index(folder: Path, split: str, images: ImageDataset, source: str) -> PackedSplit:
    """Join the tables of all shards into `SPLIT.npz`; raises `OSError`."""
    tables, shards = [], []
    for number in range(num_shards(len(images))):
        table, digest = _read_table(folder, split, number)
        tables.append(table)
        path = folder / shard_name(split, number)
        shards.append(PackedFile(name=path.name, bytes=path.stat().st_size, sha256=digest))
    joined = np.concatenate([np.zeros((0, len(COLUMNS)), np.int64), *tables])
    names = FileNames.of("", (_own_name(images, index) for index in range(len(images))))
    path = folder / f"{split}.npz"
    columns = {name: np.ascontiguousarray(joined[:, column]) for column, name in enumerate(COLUMNS)}
    _write_arrays(path, **columns, names=names.text, name_ends=names.ends)
    content = read_whole(path, path.stat().st_size, folder)
    index = PackedFile(name=path.name, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    return PackedSplit(images=len(images), source=source, index=index, shards=tuple(shards))


def encode(images: ImageDataset, index: int, settings: PackSettings) -> tuple[bytes, tuple[int, int, int]]:
    """The bytes of a packed image, and its height, width and channels (1 or 3).

    A JPEG file that is small enough is copied unchanged, because encoding it again would only lose quality.
    """
    if settings.format == "jpeg" and isinstance(images, FileImages) and images.contents is None:
        content = read_file(images.files[index])
        header = read_header(content)
        if header is not None and _may_stay(header, settings.short_side):
            images.pixels(index)  # raises if the file is damaged
            turned = header.orientation in SIDEWAYS
            sides = (header.width, header.height) if turned else (header.height, header.width)
            return content, (*sides, header.components)
    pixels = shrink(images.pixels(index), settings.short_side)
    shape = (*pixels.shape[:2], 1 if pixels.ndim == 2 else 3)
    if settings.format == "raw":
        return pixels.tobytes(), shape
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=settings.quality)
    return buffer.getvalue(), shape


def _may_stay(header: JpegHeader, short_side: int) -> bool:
    return header.components in (1, 3) and header.bits == 8 and min(header.height, header.width) <= short_side


def shrink(pixels: NDArray[np.uint8], short_side: int) -> NDArray[np.uint8]:
    """`[H, W, ...]` with a shorter side of at most `short_side`, by PIL's bicubic filter with antialiasing."""
    height, width = pixels.shape[:2]
    least = min(height, width)
    if least <= short_side:
        return pixels
    size = (max(1, round(width * short_side / least)), max(1, round(height * short_side / least)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def estimate_bytes(images: ImageDataset, settings: PackSettings) -> int:
    """Estimated size of the copy: extrapolated from up to 128 evenly spaced images, plus a tenth."""
    count = min(len(images), SAMPLES)
    total = sum(len(encode(images, i * len(images) // count, settings)[0]) for i in range(count))
    return int(1.1 * total / max(count, 1) * len(images))


def num_shards(count: int) -> int:
    """Number of shards of `count` images."""
    return -(-count // IMAGES_PER_SHARD)


def shard_name(split: str, number: int) -> str:
    """`train-00000.bin`."""
    return f"{split}-{number:05d}.bin"


def _read_table(folder: Path, split: str, number: int) -> tuple[NDArray[np.int64], str]:
    """The rows of a shard, and its digest; raises exceptions of `UNREADABLE`."""
    rows, digest = Expected(np.int64, IMAGES_PER_SHARD * len(COLUMNS), axes=2), Expected(np.uint8, 64)
    content = read_whole(table_of(folder, split, number), TABLE_BYTES, folder)
    arrays = read_arrays(content, {"table": rows, "sha256": digest})
    return arrays["table"].astype(np.int64), arrays["sha256"].tobytes().decode()


def table_of(folder: Path, split: str, number: int) -> Path:
    """Path of a shard's part of the index, until `write_index` joins them."""
    return folder / f".{split}-{number:05d}.npz"


def versions() -> dict[str, str]:
    """Versions of the packages that determine the pixels."""
    return {name: version(name) for name in ("onward", "pillow", "numpy")}


def _own_name(images: ImageDataset, index: int) -> str:
    return images.files.relative(index) if isinstance(images, FileImages) else images.name_of(index)


def _write_arrays(path: Path, **arrays: NDArray[np.int64] | NDArray[np.uint8]) -> None:
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    with open_to_write(temporary, path.parent, new=True) as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
