"""Opens files that another user may have placed: only regular files, of bounded size, never through a link.

A named pipe would block forever, `/dev/zero` would fill the memory, and a link leads wherever its owner wants. Below a
`root`, such as a run directory, no folder on the way may be a link either; the root itself may be reached by one.
Where no root is given a reader follows links, as to data sets on another disk, and a writer follows those of folders.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

DATA_BYTES = 1 << 36
"""Largest file of a data set that is read whole; the largest in use have a few hundred megabytes."""
PRIVATE, USUAL = 0o600, 0o666
"""Permissions of a new file: for the user alone, or as the user's umask says."""
_LINK = "it is a symbolic link, and nothing here may lead elsewhere"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def open_to_read(path: Path | str, root: Path | None = None) -> io.BufferedReader:
    """Open an ordinary file.

    Args:
        path: of the file.
        root: a folder above it, below which no link is followed. None follows links, but only to an ordinary file.

    Raises:
        OSError: the path is no ordinary file, is reached by a link, or cannot be read.
    """
    return open(path, "rb", opener=lambda *_: _opened(Path(path), os.O_RDONLY, 0, root, follow=root is None))


def read_whole(path: Path | str, most: int, root: Path | None = None) -> bytes:
    """All bytes of an ordinary file that has at most `most`; as `open_to_read`."""
    with open_to_read(path, root) as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(size + 1) if size <= most else b""
    if max(size, len(data)) > most:
        raise OSError(errno.EFBIG, f"it has more than {most} bytes", str(path))
    return data


def name_of(file: BinaryIO, path: Path) -> str:
    """A path of the open file, for a library that only takes paths; it stays valid if `path` is replaced meanwhile."""
    names = (f"{folder}/{file.fileno()}" for folder in ("/proc/self/fd", "/dev/fd"))
    return next((name for name in names if os.path.exists(name)), str(path))


def open_to_write(path: Path, root: Path | None = None, new: bool = False, mode: int = USUAL) -> BinaryIO:
    """Open an ordinary file for appending, created if it does not exist; never through a link.

    Args:
        path: of the file.
        root: as in `open_to_read`.
        new: the file must not exist yet.
        mode: permissions of a file that is created.

    Raises:
        OSError: the path is no ordinary file, or cannot be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | (os.O_EXCL if new else os.O_APPEND)
    return open(path, "wb" if new else "ab", opener=lambda *_: _opened(path, flags, mode, root))


def open_lock(path: Path) -> int:
    """Descriptor of a lock file that only its owner may open; wrong permissions are corrected. Raises `OSError`."""
    descriptor = _opened(path, os.O_RDWR | os.O_CREAT, PRIVATE, None)
    with suppress(OSError):  # another user's file, or a file system without permissions
        if os.fstat(descriptor).st_uid == os.geteuid():
            os.fchmod(descriptor, PRIVATE)
    return descriptor


def open_unnamed_file(label: str) -> int:
    """Descriptor of a new file in memory that no path leads to; `label` is shown in `/proc`.

    Where the system has none, it is a temporary file whose name is gone.
    """
    if hasattr(os, "memfd_create"):
        return os.memfd_create(label, os.MFD_CLOEXEC | getattr(os, "MFD_ALLOW_SEALING", 0))
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def make_folder(path: Path, root: Path) -> None:
    """Create a folder below `root` with its parents; raises `OSError` where one of them is no folder or a link."""
    parts = path.relative_to(root).parts
    for end in range(1, len(parts) + 1):
        with suppress(FileExistsError):
            (root.joinpath(*parts[:end])).mkdir()
        os.close(_folder(root.joinpath(*parts[:end]), root))


@contextmanager
def folder_of(path: Path, root: Path | None) -> Iterator[int]:
    """Descriptor of the folder that a file is in, for calls that take a `dir_fd`; see `open_to_read`."""
    descriptor = os.open(path.parent, _FOLDER) if root is None else _folder(path.parent, root)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _opened(path: Path, flags: int, mode: int, root: Path | None, follow: bool = False) -> int:
    """Descriptor of an ordinary file; O_NONBLOCK, for opening a pipe would wait for its other end."""
    flags |= os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    try:
        if root is None:
            descriptor = os.open(path, flags, mode)
        else:
            with folder_of(path, root) as folder:
                descriptor = os.open(path.name, flags, mode, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ELOOP and not follow and path.is_symlink():
            raise OSError(errno.ELOOP, _LINK, str(path)) from None
        if error.errno == errno.ENXIO:  # a pipe without a reader, or a socket
            raise OSError(errno.EINVAL, "it is no ordinary file", str(path)) from None
        raise OSError(error.errno, error.strerror, str(path)) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no ordinary file", str(path))
    os.set_blocking(descriptor, True)
    return descriptor


def _folder(path: Path, root: Path) -> int:
    """Descriptor of a folder at or below `root`, none of whose names below it is a link."""
    descriptor, at = os.open(root, _FOLDER), root
    for part in path.relative_to(root).parts:
        at = at / part
        try:
            inner = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=descriptor)
        except OSError as error:
            words = _LINK if at.is_symlink() else error.strerror
            raise OSError(error.errno, words, str(at)) from None
        finally:
            os.close(descriptor)
        descriptor = inner
    return descriptor
