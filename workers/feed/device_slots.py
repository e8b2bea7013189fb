"""Memory of a GPU that batches are copied into while it computes: two slots, each with pinned memory of the host.

    copy stream        | batch 1 to slot 1 |  | batch 2 to slot 0 |
    compute stream     | step 0 on slot 0     | step 1 on slot 1     | step 2 on slot 0

A copy from pinned memory needs no thread of the host and runs beside kernels. Events order the two streams: a slot is
written again when the step on it has ended, and read when its copy has. Nobody waits for an event but the thread that
fills slots, for the copy before out of the same pinned memory. All memory is taken once: no step allocates any.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor

SLOTS = 2
"""One that a step computes on, and one that the batch after it is copied into."""


class StreamEvent(Protocol):
    """A point in a stream of a device, as `torch.cuda.Event`."""

    def synchronize(self) -> None:
        """Wait until the device has got there."""
        ...


class Copies(Protocol):
    """The two streams of a device, and its memory; `CudaCopies` is that of a GPU."""

    def pinned(self, nbytes: int) -> Tensor:
        """So many bytes of the host that the device can read by itself."""
        ...

    def on_device(self, nbytes: int) -> Tensor:
        """So many bytes of the device."""
        ...

    def in_thread(self) -> AbstractContextManager[Any]:
        """Around all that another thread does with these."""
        ...

    def copy(self, target: Tensor, source: Tensor, after: StreamEvent | None) -> StreamEvent:
        """Launch a copy in the copy stream, which waits for `after`; returns its end."""
        ...

    def launched(self) -> StreamEvent:
        """The end of what the calling thread has launched so far in its own stream."""
        ...

    def wait(self, event: StreamEvent) -> None:
        """Let what the calling thread launches next in its own stream wait for `event`."""
        ...


class CudaCopies:
    """The copy stream of a GPU, beside the current stream of whoever asks.

    Args:
        device: the GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def pinned(self, nbytes: int) -> Tensor:
        """See `Copies`."""
        return torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)

    def on_device(self, nbytes: int) -> Tensor:
        """See `Copies`; when it is freed, nothing else gets it before the last copy into it has ended."""
        memory = torch.empty(nbytes, dtype=torch.uint8, device=self._device)
        memory.record_stream(self._stream)
        return memory

    def in_thread(self) -> AbstractContextManager[Any]:
        """See `Copies`: a thread without a device would make a context on the first one, which costs its memory."""
        return torch.cuda.device(self._device)

    def copy(self, target: Tensor, source: Tensor, after: StreamEvent | None) -> StreamEvent:
        """See `Copies`."""
        with torch.cuda.stream(self._stream):
            if after is not None:
                self._stream.wait_event(after)
            target.copy_(source, non_blocking=True)
            return self._recorded(self._stream)

    def launched(self) -> StreamEvent:
        """See `Copies`."""
        return self._recorded(torch.cuda.current_stream(self._device))

    def wait(self, event: StreamEvent) -> None:
        """See `Copies`."""
        stream: Any = torch.cuda.current_stream(self._device)
        stream.wait_event(event)

    @staticmethod
    def _recorded(stream: Any) -> StreamEvent:
        event: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(stream)
        return event  # type: ignore[no-any-return]


class Slot:
    """Memory of one batch, on both sides.

    Args:
        copies: of the device.
        nbytes: of the largest batch.
    """

    def __init__(self, copies: Copies, nbytes: int) -> None:
        self._copies = copies
        self._pinned, self._memory = copies.pinned(nbytes), copies.on_device(nbytes)
        self._shape, self._dtype = torch.Size((nbytes,)), torch.uint8
        self._copied: StreamEvent | None = None
        self._read: StreamEvent | None = None
        """Where what has read the batch before ends."""

    def fill(self, batch: Tensor) -> None:
        """Copy a batch in host memory, which the caller may overwrite as soon as this returns."""
        if self._copied is not None:
            self._copied.synchronize()
        self._shape, self._dtype = batch.shape, batch.dtype
        pinned = self._view(self._pinned)
        pinned.copy_(batch)
        self._copied = self._copies.copy(self._view(self._memory), pinned, self._read)

    def batch(self) -> Tensor:
        """The batch on the device, which is there for all that the caller launches from now on."""
        assert self._copied is not None
        self._copies.wait(self._copied)
        return self._view(self._memory)

    def release(self) -> None:
        """All that reads the batch has been launched by the caller."""
        self._read = self._copies.launched()

    def _view(self, memory: Tensor) -> Tensor:
        return memory[: self._shape.numel() * self._dtype.itemsize].view(self._dtype).view(self._shape)
