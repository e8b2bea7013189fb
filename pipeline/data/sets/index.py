"""A compact description of a data set, kept with a run so that it is never resumed on other data.

For files it holds names, sizes in bytes and labels. It holds no modification times, which copying changes, and no
contents, which would have to be read. For an array it holds a digest of the pixels, for a data set of the user's own
a digest of some of its images. Height and width from the files'
headers are kept for other uses and are not compared.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import KW_ONLY, dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.data.npz import UNREADABLE, Expected, read_arrays
from pipeline.data.sets.arrays import ArrayImages
from pipeline.data.sets.custom import CustomImages
from pipeline.data.sets.files import FileImages, FileNames, Progress, file_sizes
from pipeline.data.sets.headers import Headers
from pipeline.data.sets.packed import PackedImages
from pipeline.errors import UserError

FORMAT = "onward-index-1"
HASH_BLOCK = 1024
"""Images that are hashed at once."""
CUSTOM_IMAGES = 256
"""Images of a data set of the user's own that are hashed: each may take any time."""
MOST_BYTES = 1 << 32
"""Largest array of an index that is read by default: the names of forty million files."""
_NO_FILES = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Index:
    """A data set, without its pixels.

    Args:
        labels: int64 `[N]`.
        files: relative names, in order; empty for a data set without files.
        sizes: of the files in bytes, int64 `[N]`; empty likewise.
        contents: SHA-256 of the pixels of a data set without files.
        heights: of the images in files, in pixels, int32 `[N]`; 0 where no header was read; empty if none was.
        widths: likewise.
    """

    labels: NDArray[np.int64]
    files: FileNames
    sizes: NDArray[np.int64]
    contents: str
    _: KW_ONLY
    heights: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    widths: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))

    @property
    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, of labels, names, sizes and contents: what two runs on the same data share."""
        digest = hashlib.sha256(f"{FORMAT} {len(self.labels)} {len(self.files)} {self.contents}\n".encode())
        for numbers in (self.labels, self.files.ends, self.sizes):
            digest.update(np.ascontiguousarray(numbers, "<i8").data)
        digest.update(self.files.text.data)
        return digest.hexdigest()

    def to_bytes(self) -> bytes:
        """As the bytes of a compressed `.npz` file."""
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer, format=np.frombuffer(FORMAT.encode(), np.uint8), labels=self.labels, sizes=self.sizes,
            names=self.files.text, name_ends=self.files.ends, contents=np.frombuffer(self.contents.encode(), np.uint8),
            heights=self.heights, widths=self.widths,
        )  # fmt: skip
        return buffer.getvalue()

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the index takes."""
        arrays = (self.labels, self.files.text, self.files.ends, self.sizes, self.heights, self.widths)
        return sum(array.nbytes for array in arrays)

    @classmethod
    def from_bytes(cls, data: bytes, name: str, most: int = MOST_BYTES) -> Index:
        """Read what `to_bytes` wrote.

        Args:
            data: all bytes of the file.
            name: its name in messages.
            most: largest size of one array, in bytes.

        Raises:
            UserError: the file is damaged, or an array is larger.
        """
        expected = {name: Expected(np.int64, most // 8) for name in _NUMBERS}
        expected |= {name: Expected(np.int32, most // 4) for name in ("heights", "widths")}
        expected |= {name: Expected(np.uint8, most) for name in ("names", "contents", "format")}
        try:
            arrays = read_arrays(data, expected)
            if arrays["format"].tobytes() != FORMAT.encode():
                raise ValueError("of another version")
            labels, ends, sizes = (arrays[key].astype(np.int64) for key in _NUMBERS)
            text = arrays["names"].astype(np.uint8)
            contents = arrays["contents"].tobytes().decode()
            heights, widths = (arrays[key].astype(np.int32) for key in ("heights", "widths"))
        except UNREADABLE as error:
            raise UserError(f"'{name}' is no index of a data set that can be read ({error}). Delete it") from None
        fits = ends.shape == sizes.shape and len(ends) in (0, len(labels)) and (not len(ends) or ends[-1] == len(text))
        if not fits or heights.shape != widths.shape or heights.shape not in ((0,), ends.shape):
            raise UserError(f"'{name}' is no index of a data set: its parts do not fit each other. Delete it")
        return cls(labels, FileNames("", text, ends), sizes, contents, heights=heights, widths=widths)


_NUMBERS = ("labels", "name_ends", "sizes")


def scan(images: object, progress: Progress | None = None, headers: Headers | None = None) -> Index:
    """Index a data set: read the size of every file, or hash every pixel of an array.

    Args:
        images: what `open_dataset` returned.
        progress: called with files done and files in all.
        headers: of the files, if they were read already; then no file is accessed.

    Raises:
        UserError: a file is gone.
        TypeError: no data set of this package.
    """
    nothing = FileNames("", np.zeros(0, np.uint8), _NO_FILES)
    if isinstance(images, FileImages):
        names = FileNames("", images.files.text, images.files.ends)
        if headers is not None:
            return Index(images.labels, names, headers.nbytes, "", heights=headers.heights, widths=headers.widths)
        return Index(images.labels, names, file_sizes(images.files, progress), "")
    if isinstance(images, ArrayImages):
        return Index(images.labels, nothing, _NO_FILES, _digest(images.array))
    if isinstance(images, PackedImages):
        return Index(images.labels, nothing, _NO_FILES, images.digest)
    if isinstance(images, CustomImages):
        return Index(images.labels, nothing, _NO_FILES, _digest_of_some(images))
    raise TypeError(f"{type(images).__name__} is no data set that can be indexed")


def fingerprint(images: object) -> str:
    """SHA-256, in hexadecimal: equal on all hosts whose images have the same names, sizes and labels."""
    return scan(images).fingerprint


def difference(old: Index, new: Index) -> str | None:
    """The first difference, in words; None if there is none."""
    if old.fingerprint == new.fingerprint:
        return None
    if bool(len(old.files)) != bool(len(new.files)):
        return "it consists of files now" if len(new.files) else "it does not consist of files any more"
    if not len(old.files):
        if len(old.labels) != len(new.labels):
            return f"it has {len(new.labels)} images now and had {len(old.labels)}"
        return "its labels differ" if not np.array_equal(old.labels, new.labels) else "its pixels differ"
    return _first_file(old, new)


def _first_file(old: Index, new: Index) -> str:
    before, after = list(old.files.relatives()), list(new.files.relatives())
    counts = "" if len(before) == len(after) else f"; it has {len(after)} images now and had {len(before)}"
    if before != after:
        return _first_name(before, after) + counts
    sizes, labels = old.sizes != new.sizes, old.labels != new.labels
    first = int(np.argmax(sizes | labels))
    if sizes[first]:
        return f"'{before[first]}' has {new.sizes[first]} bytes now and had {old.sizes[first]}"
    return f"'{before[first]}' is of class {new.labels[first]} now and was of class {old.labels[first]}"


def _first_name(before: list[str], after: list[str]) -> str:
    place = next((i for i, (one, other) in enumerate(zip(before, after, strict=False)) if one != other), None)
    if place is None:
        place = min(len(before), len(after))
    if place < len(before) and before[place] not in set(after):
        return f"'{before[place]}' is gone"
    if place < len(after) and after[place] not in set(before):
        return f"'{after[place]}' is new"
    return f"'{before[place]}' is at another position"


def _digest_of_some(images: CustomImages) -> str:
    """SHA-256 of evenly spaced images, all of a small set."""
    digest, count = hashlib.sha256(), len(images)
    for index in range(0, count, max(count // CUSTOM_IMAGES, 1)):
        pixels = images.pixels(index)
        digest.update(f"{index} {pixels.shape}\n".encode() + pixels.tobytes())
    return digest.hexdigest()


def _digest(array: NDArray[np.uint8]) -> str:
    digest = hashlib.sha256(str(array.shape).encode())
    for start in range(0, len(array), HASH_BLOCK):
        digest.update(np.ascontiguousarray(array[start : start + HASH_BLOCK]).data)
    return digest.hexdigest()
