"""What a queue link asks of a GPU. `cuda.CudaGpu` is the only one that there is; tests have one of shared memory.

A GPU does later what its host launches. Everything here returns at once, but for `finish`. No work is ever made to wait
on a device for another process: if that dies, such a wait has no end and no limit. The host asks by
`SharedMark.reached`, and can give up.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import torch
from torch import Tensor


class GpuError(Exception):
    """A GPU cannot do what it was asked for; the message says why."""


class SharedMark(Protocol):
    """A point in the work of a GPU that two processes see: an interprocess event."""

    @property
    def handle(self) -> bytes:
        """By which another process opens it."""
        ...

    def record(self) -> None:
        """Put it behind all that this process has launched so far, in the stream in which it computes."""
        ...

    def reached(self) -> bool:
        """Whether the GPU has got to where it was recorded last, by whichever process; true if it never was."""
        ...


class RingMemory(Protocol):
    """Memory of a GPU that two processes use."""

    @property
    def whole(self) -> Tensor:
        """All of it, `[bytes]`, `uint8`."""
        ...

    @property
    def handle(self) -> bytes:
        """By which another process opens it."""
        ...

    def release(self) -> None:
        """Free it, by the process that has allocated it; unmap it, by one that has opened it. Raises `GpuError`."""
        ...


class LinkGpu(ABC):
    """A GPU as a process uses it that computes there.

    Args:
        device: as torch names it in this process.
        uuid: by which all processes of a host name it, whatever each of them sees.
    """

    device: torch.device
    uuid: str

    @abstractmethod
    def refusal(self) -> str:
        """Why this process cannot share memory of a GPU with another; empty if nothing speaks against it."""

    @abstractmethod
    def out_of_reach(self, uuid: str) -> str:
        """Why this process cannot write to another GPU; empty if it can."""

    @abstractmethod
    def allocate(self, nbytes: int) -> RingMemory:
        """Memory for others to open. Raises `GpuError`."""

    @abstractmethod
    def attach(self, uuid: str, handle: bytes, nbytes: int) -> RingMemory:
        """Memory that another process has allocated on the GPU `uuid`. Raises `GpuError`."""

    @abstractmethod
    def mark(self) -> SharedMark:
        """A mark for others to open, never recorded so far. Raises `GpuError`."""

    @abstractmethod
    def open_mark(self, uuid: str, handle: bytes) -> SharedMark:
        """A mark of another process, on the GPU `uuid`. Raises `GpuError`."""

    @abstractmethod
    def copy(self, source: Tensor, target: Tensor, arrived: SharedMark | None = None) -> None:
        """Copy in a stream of its own, after what computes `source`; then get to `arrived`, a mark on `target`'s GPU.

        Args:
            source: on this GPU, of any layout, or in host memory; must not be changed, but may be let go of.
            target: of the same shape and dtype, on any GPU that is in reach, or in pinned host memory.
            arrived: by `open_mark`.
        """

    @abstractmethod
    def fetch(self, source: Tensor) -> Tensor:
        """A copy on this GPU of pinned host memory, made before what is launched next."""

    @abstractmethod
    def finish(self) -> None:
        """Wait until all copies are made, which is for work of this process alone."""

    @abstractmethod
    def copied(self) -> bool:
        """Whether all copies of `copy` are made."""

    @abstractmethod
    def pin(self, memory: Tensor) -> str:
        """Let the GPU read and write host memory by itself; why it cannot, or nothing."""

    @abstractmethod
    def unpin(self, memory: Tensor) -> None:
        """Undo `pin`, after `finish`."""

    @abstractmethod
    def page(self, nbytes: int) -> Tensor:
        """New host memory that is pinned, `uint8`."""
