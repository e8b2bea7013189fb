"""A data set in an unnamed block of shared memory that workers inherit: names, labels and, on request, all files.

Every worker then has exactly its parent's list of images, however the folder changes meanwhile. No worker lists a
folder or unpacks an archive again, and pixels or encoded files exist in memory once.

The block starts with the length of a JSON header (8 bytes, little-endian), the header, and arrays at multiples of 64.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.sets.arrays import ArrayImages
from pipeline.data.sets.files import FileImages, FileNames, Progress, file_sizes, for_each_block, open_file
from pipeline.errors import UserError
from pipeline.ordinary_files import open_unnamed_file

ALIGNMENT = 64
ARRAY_BLOCK = 1024
"""Images that are copied at once."""
Spec = tuple[str, tuple[int, ...]]
"""Type and shape of an array."""
Arrays = dict[str, NDArray[Any]]


def share(images: object, contents: bool, progress: Progress | None = None) -> int | None:
    """Write a data set into an unnamed file in memory, for `open_dataset(..., shared=DESCRIPTOR)` in any process.

    Args:
        images: what `open_dataset` returned.
        contents: also read all files into the block (`data.in_memory`).
        progress: called with files done and files in all.

    Returns:
        A descriptor, which the caller closes; None for a packed data set, which processes share anyway.

    Raises:
        UserError: a file cannot be read, or changes while it is read.
    """
    if isinstance(images, ArrayImages):
        return _share_arrays(images)
    if isinstance(images, FileImages):
        return _share_files(images, contents, progress)
    return None


def shared_bytes(images: object, contents: bool) -> int:
    """The size of the block that `share` writes, but for its header; arguments as there."""
    if isinstance(images, ArrayImages):
        return images.array.nbytes + images.labels.nbytes
    if isinstance(images, FileImages):
        sizes = int(file_sizes(images.files).sum()) + images.files.ends.nbytes if contents else 0
        return images.files.text.nbytes + images.files.ends.nbytes + images.labels.nbytes + sizes
    return 0


def open_shared(descriptor: int) -> ArrayImages | FileImages:
    """The data set in a block that `share` wrote; the descriptor may be closed afterwards."""
    block = mmap.mmap(descriptor, 0, prot=mmap.PROT_READ)
    length = int.from_bytes(block[:8], "little")
    header = json.loads(block[8 : 8 + length])
    arrays = _views(block, header["arrays"])
    if header["kind"] == "arrays":
        return ArrayImages(arrays["pixels"], arrays["labels"], header["num_classes"], header["name"])
    kept = (arrays["contents"], arrays["content_ends"]) if "contents" in arrays else None
    names = FileNames(os.fsdecode(bytes.fromhex(header["root"])), arrays["names"], arrays["name_ends"])
    images = FileImages(names, arrays["labels"], header["classes"], kept)
    images.num_classes = header["num_classes"]
    return images


def _share_arrays(images: ArrayImages) -> int:
    specs: dict[str, Spec] = {"pixels": ("|u1", images.array.shape), "labels": ("<i8", images.labels.shape)}
    header = {"kind": "arrays", "name": images.name, "num_classes": images.num_classes}
    descriptor, views = _create(header, specs)
    views["labels"][:] = images.labels
    for start in range(0, len(images), ARRAY_BLOCK):  # of a view with other strides, not all is copied at once
        views["pixels"][start : start + ARRAY_BLOCK] = images.array[start : start + ARRAY_BLOCK]
    return descriptor


def _share_files(images: FileImages, contents: bool, progress: Progress | None) -> int:
    files = images.files
    specs: dict[str, Spec] = {
        "names": ("|u1", files.text.shape),
        "name_ends": ("<i8", files.ends.shape),
        "labels": ("<i8", images.labels.shape),
    }
    ends = np.cumsum(file_sizes(files)) if contents else None
    if ends is not None:
        specs |= {"content_ends": ("<i8", ends.shape), "contents": ("|u1", (int(ends[-1]) if len(ends) else 0,))}
    root = os.fsencode(files.root).hex()
    header = {"kind": "files", "root": root, "classes": images.classes, "num_classes": images.num_classes}
    descriptor, views = _create(header, specs)
    views["names"][:], views["name_ends"][:], views["labels"][:] = files.text, files.ends, images.labels
    if ends is not None:
        views["content_ends"][:] = ends
        try:
            _read_all(files, ends, views["contents"], progress)
        except UserError:
            os.close(descriptor)
            raise
    return descriptor


def _read_all(files: FileNames, ends: NDArray[np.int64], block: NDArray[Any], progress: Progress | None) -> None:
    whole = block.data

    def read(start: int, stop: int) -> None:
        begin = int(ends[start - 1]) if start else 0
        for name, end in zip(files.relatives(start, stop), ends[start:stop].tolist(), strict=True):
            _read_into(os.path.join(files.root, name), whole[begin:end])
            begin = end

    for_each_block(read, len(files), progress)


def _read_into(path: str, place: memoryview) -> None:
    done = 0
    try:
        with open_file(path) as file:
            while done < len(place) and (count := file.readinto(place[done:])):
                done += count
            changed = done < len(place) or file.read(1) != b""
    except OSError as error:
        raise UserError(f"image '{path}' cannot be read ({error.strerror}). Replace or remove the file") from None
    if changed:
        raise UserError(f"image '{path}' changed while it was read. Start again when the data set is complete")


def _create(header: Mapping[str, Any], specs: Mapping[str, Spec]) -> tuple[int, Arrays]:
    """An unnamed file with room for the arrays, and the arrays as views into it."""
    width = len(json.dumps({**header, "arrays": {k: [*spec, 2**63] for k, spec in specs.items()}}).encode())
    place, placed = _aligned(8 + width), {}
    for name, (kind, shape) in specs.items():
        placed[name] = [kind, list(shape), place]
        place = _aligned(place + prod(shape) * np.dtype(kind).itemsize)
    text = json.dumps({**header, "arrays": placed}).encode().ljust(width)
    descriptor = open_unnamed_file("onward-data")
    os.ftruncate(descriptor, max(place, 1))
    block = mmap.mmap(descriptor, 0)
    block[: 8 + width] = width.to_bytes(8, "little") + text
    return descriptor, _views(block, placed)


def _views(block: mmap.mmap, placed: Mapping[str, Any]) -> Arrays:
    return {
        name: np.frombuffer(block, kind, prod(shape), offset=start if prod(shape) else 0).reshape(shape)
        for name, (kind, shape, start) in placed.items()
    }


def _aligned(place: int) -> int:
    return -(-place // ALIGNMENT) * ALIGNMENT
