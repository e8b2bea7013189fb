"""The files of a data set: a million names in a few arrays; every file is read with one read.

`posix_fadvise` announces the next files to the kernel, so that the disk reads while images are decoded. The page cache
is never dropped, because the next epoch reads from it where the data set fits.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.data.sets.decoding import decode, decode_error
from pipeline.errors import UserError

THREADS = 8
"""Threads that call the file system at the same time: on a network file system most of the time is waiting."""
BLOCK = 2048
"""Files that a thread handles between two progress reports."""
Progress = Callable[[int, int], None]
"""Called with files done and files in all."""


class FileNames(Sequence[str]):
    """Paths below one folder, in one block of bytes: 1.3 million of them take little more memory than their text.

    Args:
        root: the folder, "" for none.
        text: all relative names after each other, as the file system spells them; uint8.
        ends: offset in `text` at which each name ends, int64 `[N]`.
    """

    def __init__(self, root: str, text: NDArray[np.uint8], ends: NDArray[np.int64]) -> None:
        self.root, self.text, self.ends = root, text, ends

    @classmethod
    def of(cls, root: str, names: Iterable[str]) -> FileNames:
        """Names relative to `root`, in this order; they are encoded while they come."""
        text, ends = bytearray(), []
        for name in names:
            text += os.fsencode(name)
            ends.append(len(text))
        return cls(root, np.frombuffer(bytes(text), np.uint8), np.asarray(ends, np.int64))

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return os.path.join(self.root, self.relative(index))

    def __iter__(self) -> Iterator[str]:
        return (os.path.join(self.root, name) for name in self.relatives())

    def relatives(self, start: int = 0, stop: int | None = None) -> Iterator[str]:
        """The names below the folder, in order; much quicker than one by one."""
        ends = self.ends[start:stop]
        place = first = int(self.ends[start - 1]) if start else 0
        text = self.text[first : int(ends[-1])].tobytes() if len(ends) else b""
        for end in ends.tolist():
            yield os.fsdecode(text[place - first : end - first])
            place = end

    def relative(self, index: int) -> str:
        """The name below the folder; raises `IndexError`."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"there are {len(self)} files, and none has the number {index}")
        index %= len(self)
        start = int(self.ends[index - 1]) if index else 0
        return os.fsdecode(self.text[start : int(self.ends[index])].tobytes())


class FileImages:
    """Images in files, which are opened on access; or, if `contents` is given, in memory.

    Args:
        names: of the files.
        labels: `[N]`; -1 where nothing is known.
        classes: their names, in the order of their numbers; none if the images have no labels.
        contents: bytes of all files, concatenated, uint8, and the offset of each end, int64 `[N]`; None reads files.
    """

    def __init__(
        self,
        names: FileNames,
        labels: NDArray[np.int64],
        classes: Sequence[str],
        contents: tuple[NDArray[np.uint8], NDArray[np.int64]] | None = None,
    ) -> None:
        self.files, self.labels, self.contents = names, labels, contents
        self.classes, self.num_classes = list(classes), len(classes)

    def __len__(self) -> int:
        return len(self.files)

    def pixels(self, index: int) -> NDArray[np.uint8]:
        """`[H, W]` or `[H, W, 3]`; raises `UserError` if the file cannot be read or decoded."""
        path = self.files[index]
        return decode(read_file(path) if self.contents is None else self._kept(index), path)

    def prefetch(self, indices: Sequence[int]) -> None:
        """Ask the system to read the files of these images ahead; `pixels` raises for those that cannot be opened."""
        if self.contents is None:
            read_ahead([self.files[index] for index in indices])

    def image(self, index: int) -> Image.Image:
        """The image, mode L or RGB; raises `UserError` if its file cannot be decoded."""
        return Image.fromarray(self.pixels(index))

    def label(self, index: int) -> int:
        """The number of the image's class; -1 if it has none."""
        return int(self.labels[index])

    def name_of(self, index: int) -> str:
        """The path of the image's file."""
        return self.files[index]

    def without(self, numbers: Collection[int]) -> FileImages:
        """The same data set without these images, as a new object."""
        names = (name for number, name in enumerate(self.files.relatives()) if number not in numbers)
        labels = np.delete(self.labels, np.fromiter(numbers, np.int64))
        remaining = FileImages(FileNames.of(self.files.root, names), labels, self.classes)
        remaining.num_classes = self.num_classes
        return remaining

    def _kept(self, index: int) -> memoryview:
        assert self.contents is not None
        data, ends = self.contents
        return data[int(ends[index - 1]) if index else 0 : int(ends[index])].data


def read_file(path: str) -> bytes:
    """All bytes of an image file.

    Raises:
        UserError: the file is gone, or cannot be read.
    """
    try:
        with open_file(path) as file:
            return file.readall()
    except OSError as error:
        raise read_error(path, error) from None


def open_file(path: str) -> io.FileIO:
    """Open a regular file for reading; anything else is refused, because opening a pipe waits for its writer."""
    file = open(path, "rb", buffering=0, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is no file")
    return file


def read_ahead(paths: Iterable[str]) -> None:
    """Ask the system to read files in the background, where it supports that."""
    if not hasattr(os, "posix_fadvise"):
        return
    for path in paths:
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
            finally:
                os.close(descriptor)


def read_image(path: str) -> NDArray[np.uint8]:
    """Pixels of a file, `[H, W]` or `[H, W, 3]`; raises `UserError` if it is missing, damaged or no image."""
    return decode(read_file(path), path)


def file_sizes(files: FileNames, progress: Progress | None = None) -> NDArray[np.int64]:
    """Bytes of every file, `[N]`; 0 for a missing file, which is an error when it is opened."""
    sizes = np.zeros(len(files), np.int64)

    def look(start: int, stop: int) -> None:
        for index, name in enumerate(files.relatives(start, stop), start):
            path = os.path.join(files.root, name)
            with suppress(OSError):
                sizes[index] = os.stat(path).st_size

    for_each_block(look, len(files), progress)
    return sizes


def for_each_block(
    act: Callable[[int, int], None], count: int, progress: Progress | None = None, size: int | None = None
) -> None:
    """Call `act(start, stop)` for every block of files, in threads; the first exception ends the loop."""
    step = size or BLOCK

    def block(start: int) -> None:
        act(start, min(start + step, count))

    with ThreadPoolExecutor(THREADS, thread_name_prefix="files") as pool:
        for number, _ in enumerate(pool.map(block, range(0, count, step)), 1):
            if progress is not None:
                progress(min(number * step, count), count)


def read_error(path: str, error: OSError) -> UserError:
    """The error for a file that cannot be opened."""
    if isinstance(error, FileNotFoundError):
        return UserError(f"image '{path}' does not exist any more. Put it back or start again without it")
    return decode_error(path, error.strerror or error)
