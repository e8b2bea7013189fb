"""A GPU of shared memory for links, where there is none: its handles are bytes that another process opens.

What is said of CUDA holds for it, too: a handle is worth nothing when its owner has ended; copies and marks wait while
the GPU is `held`, in the order in which they were launched; and two processes see the same memory and the same marks.
It cannot show what only a GPU does: that kernels, copies and events of two processes keep their order there.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from workers.links.gpu import GpuError, LinkGpu, SharedMark

HANDLE_BYTES = 64
GPUS: dict[str, tuple[str, dict[str, Any]]] = {
    "ring": ("device to device (CUDA IPC)", {}),
    "pinned": ("pinned host memory: at stage 1, it is a test", {"refuses": "it is a test"}),
    "pages": ("could not be registered (it is a test)", {"refuses": "it is a test", "unpinned": "it is a test"}),
}
"""Queues between two GPUs: what is said of them, and what their GPUs are like."""


class Shared:
    """Anonymous memory of one process, and of those that open it through that process."""

    def __init__(self, nbytes: int, handle: bytes = b"") -> None:
        self._descriptor: int | None = None
        if handle:
            pid, number, size = struct.unpack_from("!QQQ", handle)
            try:
                descriptor = os.open(f"/proc/{pid}/fd/{number}", os.O_RDWR)
            except OSError as error:
                raise GpuError(f"invalid argument ({error.strerror})") from None
            if size != nbytes:
                raise GpuError("invalid argument: the memory has another size")
        else:
            descriptor = self._descriptor = os.memfd_create("fake-gpu")
            os.ftruncate(descriptor, nbytes)
        self.whole: Tensor = torch.frombuffer(mmap.mmap(descriptor, nbytes), dtype=torch.uint8)
        if handle:
            os.close(descriptor)
        self.handle = handle or struct.pack("!QQQ", os.getpid(), descriptor, nbytes).ljust(HANDLE_BYTES, b"\0")
        self.released = False

    def release(self) -> None:
        assert not self.released
        self.released = True
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class FakeMark:
    """Numbers in shared memory: how often it was recorded, and how often that was reached."""

    def __init__(self, launch: Callable[[Callable[[], None]], None], handle: bytes = b"") -> None:
        self._memory, self._launch = Shared(16, handle), launch
        self._numbers = self._memory.whole.view(torch.int64)

    @property
    def handle(self) -> bytes:
        return self._memory.handle

    def record(self) -> None:
        self._numbers[0] += 1
        self._launch(self._reach)

    def _reach(self) -> None:
        self._numbers[1] += 1

    def reached(self) -> bool:
        return bool(self._numbers[0] == self._numbers[1])


class FakeGpu(LinkGpu):
    """See `LinkGpu`.

    Args:
        uuid: its name.
        refuses, hidden, unpinned, lost: what `refusal`, `out_of_reach` and `pin` say; bytes that are copied into the
            memory of another process get lost.
    """

    def __init__(
        self, uuid: str, *, refuses: str = "", hidden: str = "", unpinned: str = "", lost: bool = False
    ) -> None:
        self.device, self.uuid = torch.device("cpu"), uuid
        self.held = False
        self.memories: list[Shared] = []
        self.pinned = 0
        self._refuses, self._hidden, self._unpinned, self._lost = refuses, hidden, unpinned, lost
        self._launched: list[Callable[[], None]] = []

    def hold(self) -> None:
        """Do nothing of what is launched from now on, until `finish`."""
        self.held = True

    def refusal(self) -> str:
        return self._refuses

    def out_of_reach(self, uuid: str) -> str:
        return self._hidden

    def allocate(self, nbytes: int) -> Shared:
        self.memories.append(Shared(nbytes))
        return self.memories[-1]

    def attach(self, uuid: str, handle: bytes, nbytes: int) -> Shared:
        self.memories.append(Shared(nbytes, handle))
        return self.memories[-1]

    def mark(self) -> SharedMark:
        return FakeMark(self._launch)

    def open_mark(self, uuid: str, handle: bytes) -> SharedMark:
        return FakeMark(self._launch, handle)

    def copy(self, source: Tensor, target: Tensor, arrived: SharedMark | None = None) -> None:
        assert source.shape == target.shape
        assert source.dtype == target.dtype
        self._launch(lambda: None if self._lost else target.copy_(source))
        if arrived is not None:
            arrived.record()

    def fetch(self, source: Tensor) -> Tensor:
        target = torch.full_like(source, 77)
        self._launch(lambda: target.copy_(source))
        return target

    def finish(self) -> None:
        self.held = False
        while self._launched:
            self._launched.pop(0)()

    def copied(self) -> bool:
        return not self._launched

    def pin(self, memory: Tensor) -> str:
        self.pinned += not self._unpinned
        return self._unpinned

    def unpin(self, memory: Tensor) -> None:
        assert self.copied()
        self.pinned -= 1

    def page(self, nbytes: int) -> Tensor:
        return torch.empty(nbytes, dtype=torch.uint8)

    def _launch(self, work: Callable[[], object]) -> None:
        self._launched.append(lambda: (work(), None)[1])
        if not self.held:
            self.finish()
