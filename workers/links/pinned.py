"""Slots in shared memory of the host for ends on a GPU, which reads and writes them by itself: pinned, never pageable.

Each end registers its mapping of the shared memory with its own GPU (`cudaHostRegister`). Then one copy suffices at
either end, and the `depth + 1` slots are the double buffer: one is read while the next is written.

    sender's GPU   ==DMA==>   slot n   ==DMA==>   receiver's GPU

Where memory cannot be registered, as in a container without enough of `memlock`, an end copies through two pinned pages
of its own, in parts: the GPU fills one page while the processor empties the other.
"""

from __future__ import annotations

import torch
from torch import Tensor

from workers.links.gpu import LinkGpu
from workers.links.memory import SlotMemory
from workers.links.slots import InSlots, OutSlots, Wait

PART_BYTES = 4 * 2**20
"""Of one pinned page; smaller parts keep the GPU waiting for its next order, larger ones the processor for the GPU."""


class _Pinned:
    """What both sides have in common.

    Args:
        memory: the slots.
        gpu: of this end.
    """

    def __init__(self, memory: SlotMemory, gpu: LinkGpu) -> None:
        self._memory, self._gpu, self._open = memory, gpu, True
        self.refusal = gpu.pin(memory.bytes)
        """Why the memory could not be registered; empty if it was."""
        self._pages = [gpu.page(PART_BYTES) for _ in range(2)] if self.refusal else []

    def close(self) -> None:
        """Wait for the copies of this end, so that none of them finds its memory gone."""
        if not self._open:
            return
        self._open = False
        self._gpu.finish()
        if not self.refusal:
            self._gpu.unpin(self._memory.bytes)


class PinnedOut(_Pinned, OutSlots):
    """The sender's side, on a GPU. The copy is waited for, as no receiver could see that it is made."""

    def put(self, number: int, tensor: Tensor, wait: Wait) -> None:
        """See `OutSlots.put`; waits for nothing but this GPU."""
        slot = self._memory.message(number, tuple(tensor.shape))
        if not self.refusal:
            self._gpu.copy(tensor, slot)
            self._gpu.finish()
            return
        source, target = _flat(tensor), _flat(slot)
        emptied: tuple[int, Tensor] | None = None
        for part, start in enumerate(range(0, len(target), PART_BYTES)):
            page = self._pages[part % 2][: len(target) - start]
            self._gpu.finish()  # the page that is emptied next is full
            self._gpu.copy(source[start : start + PART_BYTES], page)
            if emptied is not None:
                _write(target, *emptied)
            emptied = start, page
        self._gpu.finish()
        if emptied is not None:
            _write(target, *emptied)


class PinnedIn(_Pinned, InSlots):
    """The receiver's side, on a GPU: every message is copied there, in the stream that computes."""

    def take(self, number: int, shape: tuple[int, ...], wait: Wait) -> Tensor:
        """See `InSlots.take`; waits for nothing but this GPU."""
        self._gpu.finish()  # the slot of the message before, which is free from now on, has been read
        slot = self._memory.message(number, shape)
        if not self.refusal:
            return self._gpu.fetch(slot)
        source, parts = _flat(slot), []
        for part, start in enumerate(range(0, len(source), PART_BYTES)):
            if part > 1:
                self._gpu.finish()
            page = self._pages[part % 2][: len(source) - start]
            page.copy_(source[start : start + PART_BYTES])
            parts.append(self._gpu.fetch(page))
        whole = torch.cat(parts) if parts else torch.empty(0, dtype=torch.uint8, device=self._gpu.device)
        return whole.view(slot.dtype).view(shape)


def _flat(tensor: Tensor) -> Tensor:
    """The bytes of a tensor as a vector."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def _write(target: Tensor, start: int, page: Tensor) -> None:
    target[start : start + len(page)].copy_(page)
