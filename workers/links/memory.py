"""Nameless shared memory, and the messages of one link in it.

An anonymous memory file has no name in any directory, so there is nothing to clean up and nothing can
be left behind, not even when every process is killed: the kernel frees it with its last user.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import mmap
import os
from collections.abc import Iterator
from math import prod

import torch
from torch import Tensor

from pipeline.data.sets.memory import bytes_left_in_cgroups
from pipeline.errors import TrainingError
from pipeline.ordinary_files import open_unnamed_file
from workers.links.messages import TensorSpec

SEALS = getattr(fcntl, "F_SEAL_SHRINK", 0) | getattr(fcntl, "F_SEAL_GROW", 0) | getattr(fcntl, "F_SEAL_SEAL", 0)


class SlotMemory:
    """`depth + 1` page-aligned slots, each as large as the largest message, and a count of messages sent.

    Message `n` lives in slot `n mod (depth + 1)`: with at most `depth` messages unreceived, the slot of
    the message received last is never written, so its receiver may use it in place.

    Args:
        descriptor: of a file of at least `size(spec, depth)` bytes; not kept open.
        spec: the largest message.
        depth: messages that may wait.
    """

    def __init__(self, descriptor: int, spec: TensorSpec, depth: int) -> None:
        self._dtype, self._slots = spec.dtype, depth + 1
        self._slot_bytes = whole_pages(spec.nbytes)
        # Touching every page now keeps page faults out of the first lap.
        flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
        mapped = mmap.mmap(descriptor, self.size(spec, depth), flags=flags)
        self._bytes: Tensor = torch.frombuffer(mapped, dtype=torch.uint8)  # keeps the mapping alive
        self._sent = self._bytes[:8].view(torch.int64)

    @staticmethod
    def size(spec: TensorSpec, depth: int) -> int:
        """Bytes of the file: one page for the count, then the slots."""
        return mmap.PAGESIZE + (depth + 1) * whole_pages(spec.nbytes)

    @property
    def sent(self) -> int:
        """Messages sent so far, readable at both ends."""
        return int(self._sent.item())

    @sent.setter
    def sent(self, count: int) -> None:
        self._sent.fill_(count)

    def message(self, index: int, shape: tuple[int, ...]) -> Tensor:
        """The memory of message `index` as a contiguous tensor of `shape`."""
        start = mmap.PAGESIZE + index % self._slots * self._slot_bytes
        nbytes = prod(shape) * self._dtype.itemsize
        return self._bytes[start : start + nbytes].view(self._dtype).view(shape)


@contextlib.contextmanager
def memory_file(spec: TensorSpec, depth: int, what: str) -> Iterator[int]:
    """Descriptor of a new nameless file, its pages reserved; closed on leaving (mappings stay).

    Raises:
        TrainingError: there is not that much memory.
    """
    size = SlotMemory.size(spec, depth)
    try:
        descriptor = nameless_file("onward-link", size)
    except OSError as error:
        raise TrainingError(
            f"{what}: {size / 1e9:.2f} GB of shared memory for {depth + 1} messages of {spec} cannot be had "
            f"({error.strerror}). Lower link.depth or data.batch_size"
        ) from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def nameless_file(label: str, size: int) -> int:
    """Descriptor of a new file of `size` bytes, all of them reserved, which nobody can make shorter.

    `label` is what tools show it as.

    Raises:
        OSError: there is not that much memory.
    """
    # The kernel would try, and kill whoever stands in its way.
    if size > min([os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE, *bytes_left_in_cgroups()]):
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    descriptor = open_unnamed_file(label)
    try:
        os.ftruncate(descriptor, size)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, size)  # fail here, not with a bus error later
        if _can_seal():
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SEALS)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def is_sealed(descriptor: int) -> bool:
    """Whether nobody can make a file shorter: reading what is mapped and gone would end the process by a signal.

    True where the system has no seals.
    """
    if not _can_seal():
        return True
    try:
        return bool(fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK)
    except OSError:  # a file of another kind
        return False


@functools.cache
def _can_seal() -> bool:
    """Whether this system has files in memory that can be sealed; some sandboxes have them and no seals."""
    if not SEALS:
        return False
    try:
        descriptor = open_unnamed_file("onward-trial")
    except OSError:
        return False
    try:
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SEALS)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def whole_pages(nbytes: int) -> int:
    """`nbytes` rounded up to whole pages."""
    return -(-nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
