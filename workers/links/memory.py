"""Anonymous shared memory, and the messages of one link in it.

The memory is a file without a name in any directory. The kernel frees it with its last user, so that nothing is left
behind even when every process is killed.
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

    Message `n` is in slot `n mod (depth + 1)`. At most `depth` messages are unreceived, so the slot of the message
    that was received last is not overwritten, and its receiver may use it in place. With `depth` 2:

        slot 0    3: in use by the receiver
        slot 1    4: unreceived
        slot 2    5: unreceived; message 6 needs slot 0, and waits for the credit that comes when 4 is taken

    Args:
        descriptor: of a file of at least `size(spec, depth)` bytes; may be closed afterwards.
        spec: the largest message.
        depth: number of messages that may be unreceived.
    """

    def __init__(self, descriptor: int, spec: TensorSpec, depth: int) -> None:
        self._dtype, self._slots = spec.dtype, depth + 1
        self._slot_bytes = whole_pages(spec.nbytes)
        # Touching every page now keeps page faults out of the first steps.
        flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
        mapped = mmap.mmap(descriptor, self.size(spec, depth), flags=flags)
        self.bytes: Tensor = torch.frombuffer(mapped, dtype=torch.uint8)  # keeps the mapping alive
        """All of it."""
        self._sent = self.bytes[:8].view(torch.int64)

    @staticmethod
    def size(spec: TensorSpec, depth: int) -> int:
        """Bytes of the file: one page for the count, then the slots."""
        return mmap.PAGESIZE + (depth + 1) * whole_pages(spec.nbytes)

    @property
    def sent(self) -> int:
        """Number of messages sent so far; both ends can read it."""
        return int(self._sent.item())

    @sent.setter
    def sent(self, count: int) -> None:
        self._sent.fill_(count)

    def message(self, index: int, shape: tuple[int, ...]) -> Tensor:
        """The memory of message `index`, as a contiguous tensor of `shape`."""
        start = mmap.PAGESIZE + index % self._slots * self._slot_bytes
        nbytes = prod(shape) * self._dtype.itemsize
        return self.bytes[start : start + nbytes].view(self._dtype).view(shape)


@contextlib.contextmanager
def memory_file(spec: TensorSpec, depth: int, owner: str) -> Iterator[int]:
    """Descriptor of a new anonymous file with reserved pages; closed at the end of the block (mappings stay).

    Raises:
        TrainingError: there is not enough memory.
    """
    size = SlotMemory.size(spec, depth)
    try:
        descriptor = nameless_file("onward-link", size)
    except OSError as error:
        raise TrainingError(
            f"{owner}: {size / 1e9:.2f} GB of shared memory for {depth + 1} messages of {spec} cannot be had "
            f"({error.strerror}). Lower link.depth or data.batch_size"
        ) from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def nameless_file(label: str, size: int) -> int:
    """Descriptor of a new anonymous file of `size` reserved bytes, which nobody can truncate.

    Tools such as `lsof` show it as `label`.

    Raises:
        OSError: there is not enough memory.
    """
    # The kernel would try, and kill processes until the memory suffices.
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
    """Whether nobody can truncate a file: reading a mapped page that was cut off would kill the process (SIGBUS).

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
    """Whether this system can seal anonymous files; some sandboxes support the files and not the seals."""
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
