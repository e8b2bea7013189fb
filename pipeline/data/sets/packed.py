"""Reads a packed copy of a data set: images resized once, in a few large files instead of a million.

A packed folder holds `manifest.json`; for each split (`train`, `test`) a file `SPLIT.npz` with the position and label
of each image; and shards `SPLIT-00000.bin`, which are mapped into memory: the processes of a host share them, and the
system caches what fits. `pack_writer.py` writes it.
"""

from __future__ import annotations

import hashlib
import io
import json
import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, ValidationError

from pipeline.config.base import PositiveInt, Section
from pipeline.data.npz import UNREADABLE, Expected, read_arrays
from pipeline.data.sets.decoding import decode
from pipeline.data.sets.files import FileNames
from pipeline.errors import UserError
from pipeline.ordinary_files import open_to_read, read_whole

MANIFEST = "manifest.json"
FORMAT = "onward-packed-1"
MANIFEST_BYTES = 64 * 1024 * 1024
"""Largest manifest that is read; the names of twenty thousand classes take half a megabyte."""
NAME_BYTES = 4096
"""Longest path that Linux takes."""
COLUMNS = ("shard", "start", "end", "height", "width", "channels", "label")
"""Columns of `SPLIT.npz`, int64 `[N]` each, beside the names as bytes and the offsets of their ends."""
_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Bytes = Annotated[int, Field(ge=0)]
_REMEDY = "Make the packed copy again ('onward data pack')"


class PackedFile(Section):
    """A file of the packed folder."""

    name: Annotated[str, Field(pattern=r"^(train|test)(-\d{5}\.bin|\.npz)$")]
    bytes: _Bytes
    sha256: _Digest


class PackedSplit(Section):
    """The training or the test set."""

    images: Annotated[int, Field(ge=0)]
    source: _Digest
    """Fingerprint of the data set that was packed (`pipeline.data.sets.index`)."""
    index: PackedFile
    shards: tuple[PackedFile, ...]


class PackSettings(Section):
    """Format and size of the packed images."""

    format: Literal["jpeg", "raw"] = "jpeg"
    """`jpeg`: encoded again. `raw`: pixels as bytes, which need no decoding and take ten times the space."""
    short_side: Annotated[int, Field(ge=8)] = 256
    """Longest that the shorter side may be, in pixels; smaller images are not enlarged."""
    quality: Annotated[int, Field(ge=1, le=100)] = 90
    """Quality of the JPEGs, on libjpeg's scale."""


class PackedManifest(Section):
    """The content of `manifest.json`."""

    format: Literal["onward-packed-1"] = "onward-packed-1"
    name: str
    """`data.name` of the source."""
    settings: PackSettings
    classes: tuple[str, ...]
    """Names of the classes, where they are known."""
    num_classes: Annotated[int, Field(ge=0)]
    images_per_shard: PositiveInt
    splits: dict[Literal["train", "test"], PackedSplit]
    versions: dict[str, str]
    """Of the packages that resized and encoded."""


class PackedImages:
    """One split of a packed data set.

    Args:
        root: the packed folder.
        manifest: of that folder.
        split: "train" or "test".

    Raises:
        UserError: there is no such split, or a file is missing, of another size, or damaged.
    """

    def __init__(self, root: Path, manifest: PackedManifest, split: Literal["train", "test"]) -> None:
        if split not in manifest.splits:
            raise UserError(f"'{root}' has no {split} images: there were none when it was packed. {_REMEDY} with them")
        self._root, self._split, self.manifest = root, split, manifest
        packed_split = manifest.splits[split]
        self._columns, self._names = _read_index(root, packed_split)
        self._maps = [_map(root, shard) for shard in packed_split.shards]
        self._shards = [memoryview(shard) for shard in self._maps]
        _check_columns(root, packed_split, manifest.settings.format, self._columns)
        _check_labels(root, packed_split, manifest.num_classes, self._columns["label"])
        self._raw = manifest.settings.format == "raw"
        self.labels = self._columns["label"]
        self.classes, self.num_classes = list(manifest.classes), manifest.num_classes
        self.digest = hashlib.sha256(
            "".join(file.sha256 for file in (packed_split.index, *packed_split.shards)).encode()
        ).hexdigest()
        """SHA-256 of the digests of the split's files."""

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, index: int) -> NDArray[np.uint8]:
        """`[H, W]` or `[H, W, 3]`; those of a raw copy are mapped from the file and read-only.

        Raises `UserError` if a JPEG of the packed copy cannot be decoded.
        """
        shard, start, end, height, width, channels, _ = (int(self._columns[name][index]) for name in COLUMNS)
        data = self._shards[shard][start:end]
        if not self._raw:
            return decode(data, self.name_of(index))
        return np.frombuffer(data, np.uint8).reshape((height, width) if channels == 1 else (height, width, 3))

    def prefetch(self, indices: Sequence[int]) -> None:
        """Ask the system to read these images ahead."""
        for index in indices:
            shard, start, end = (int(self._columns[name][index]) for name in COLUMNS[:3])
            first = start - start % mmap.PAGESIZE
            if end > start and hasattr(mmap, "MADV_WILLNEED"):
                self._maps[shard].madvise(mmap.MADV_WILLNEED, first, end - first)

    def image(self, index: int) -> Image.Image:
        """The image, mode L or RGB."""
        return Image.fromarray(self.pixels(index))

    def label(self, index: int) -> int:
        """Its class, counted from 0; -1 if it has none."""
        return int(self.labels[index])

    def name_of(self, index: int) -> str:
        """`FOLDER/SPLIT[INDEX] (NAME BEFORE IT WAS PACKED)`."""
        return f"{self._root}/{self._split}[{index}] ({self._names[index]})"


def open_packed(root: Path, split: Literal["train", "test"]) -> PackedImages:
    """Open a split; sizes of all files are compared with the manifest, digests only of the index (see `verify`).

    Raises:
        UserError: the folder is no packed copy, or a damaged one.
    """
    return PackedImages(root, read_manifest(root), split)


def read_manifest(root: Path) -> PackedManifest:
    """Read `manifest.json`; raises `UserError` if the folder is no packed copy, or the manifest is damaged."""
    path = root / MANIFEST
    try:
        content = read_whole(path, MANIFEST_BYTES)
    except OSError as error:
        raise UserError(
            f"'{root}' is no packed data set: '{path}' cannot be read ({error.strerror}). "
            "Give a folder that 'onward data pack' wrote"
        ) from None
    try:
        return PackedManifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        location = ".".join(map(str, first["loc"])) or "it"
        raise UserError(f"'{path}' is damaged or of another version: {location}: {first['msg']}. {_REMEDY}") from None


def verify(root: Path) -> int:
    """Compare size and SHA-256 of every file with the manifest; return the number of files.

    Raises:
        UserError: a file differs; the message names the first.
    """
    manifest = read_manifest(root)
    files = [file for split in manifest.splits.values() for file in (split.index, *split.shards)]
    for file in files:
        with _opened(root, file) as content:
            if hashlib.file_digest(content, "sha256").hexdigest() != file.sha256:
                path = root / file.name
                raise UserError(f"'{path}' is damaged: its SHA-256 is not that of the manifest. {_REMEDY}")
    for split in manifest.splits:
        PackedImages(root, manifest, split)
    return len(files)


def _opened(root: Path, file: PackedFile) -> io.BufferedReader:
    path = root / file.name
    try:
        content = open_to_read(path)
    except OSError as error:
        raise UserError(f"'{path}' cannot be read ({error.strerror}). {_REMEDY}") from None
    if (size := os.fstat(content.fileno()).st_size) != file.bytes:
        content.close()
        raise UserError(f"'{path}' has {size} bytes, and {file.bytes} were packed: it is damaged. {_REMEDY}")
    return content


def _map(root: Path, file: PackedFile) -> mmap.mmap:
    with _opened(root, file) as content:
        if not file.bytes:
            return mmap.mmap(-1, 1)  # a file without bytes cannot be mapped
        return mmap.mmap(content.fileno(), file.bytes, prot=mmap.PROT_READ)


def _read_index(root: Path, split: PackedSplit) -> tuple[dict[str, NDArray[np.int64]], FileNames]:
    """The columns and names of a split, whose sizes are checked against the number of images before they are read."""
    path, packed = root / split.index.name, sum(shard.bytes for shard in split.shards)
    with _opened(root, split.index) as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != split.index.sha256:
            raise UserError(f"'{path}' is damaged: its SHA-256 is not that of the manifest. {_REMEDY}")
        if split.images > packed:
            raise UserError(
                f"'{root / MANIFEST}' announces {split.images} images in {packed} bytes: it is damaged. {_REMEDY}"
            )
        file.seek(0)
        content = file.read(split.index.bytes)
    expected = {name: Expected(np.int64, split.images) for name in (*COLUMNS, "name_ends")}
    try:
        arrays = read_arrays(content, {**expected, "names": Expected(np.uint8, split.images * NAME_BYTES)})
        columns = {name: arrays[name].astype(np.int64) for name in COLUMNS}
        names = FileNames("", arrays["names"].astype(np.uint8), arrays["name_ends"].astype(np.int64))
    except UNREADABLE as error:
        raise UserError(f"'{path}' cannot be read ({error}). {_REMEDY}") from None
    if any(column.shape != (split.images,) for column in (*columns.values(), names.ends)):
        raise UserError(f"'{path}' does not describe the {split.images} images of the manifest. {_REMEDY}")
    return columns, names


def _check_columns(root: Path, split: PackedSplit, kind: str, columns: dict[str, NDArray[np.int64]]) -> None:
    """Refuse positions outside of a shard, which would fail later, far from their cause."""
    shard, start, end, height, width, channels, _ = (columns[name] for name in COLUMNS)
    sizes = np.asarray([file.bytes for file in split.shards], np.int64)
    fits = bool(np.all((shard >= 0) & (shard < len(sizes)) & (start >= 0) & (start <= end)))
    fits = fits and bool(np.all(end <= sizes[shard])) and bool(np.all(np.isin(channels, (1, 3))))
    if fits and kind == "raw":
        fits = bool(np.all(height * width * channels == end - start))
    if not fits:
        raise UserError(f"'{root / split.index.name}' points outside of the packed files. {_REMEDY}")


def _check_labels(root: Path, split: PackedSplit, classes: int, labels: NDArray[np.int64]) -> None:
    least, most = (int(labels.min()), int(labels.max())) if len(labels) else (0, 0)
    if least < (0 if classes else -1) or (classes and most >= classes):
        raise UserError(
            f"'{root / split.index.name}' holds labels from {least} to {most}, and the data set has {classes} classes. "
            f"{_REMEDY}"
        )


def to_json(manifest: PackedManifest) -> str:
    """The text of `manifest.json`."""
    values: Any = manifest.model_dump(mode="json")
    return json.dumps(values, indent=2) + "\n"
