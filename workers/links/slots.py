"""Where the messages of a queue link lie on their way, as its two ends see it; and the plainest of them, host memory.

Message `n` is in slot `n mod (depth + 1)`, as `memory.SlotMemory` draws it. The ends agree on order and on room by
frames and credits (`framed`), so a slot is written only when its reader may be done with it. What is left to the slots
is what a device does later than its host: both methods may wait for the other end, within its limit of time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from workers.links.memory import SlotMemory

Wait = Callable[[Callable[[], bool]], None]
"""Returns when what it is given is true; raises `LinkTimeout` when the time is over, `LinkClosed` when the other end
has gone, by whose death a device may never get there."""


class OutSlots(ABC):
    """The sender's side."""

    reads_later = False
    """See `Sender.reads_later`."""

    @abstractmethod
    def put(self, number: int, tensor: Tensor, wait: Wait) -> None:
        """Write message `number`, for which there is room; the receiver is told of it as soon as this returns.

        Raises:
            LinkTimeout: the receiver is not done with the slot in time. Nothing was written.
            LinkClosed: the receiver has ended.
        """

    @abstractmethod
    def close(self) -> None:
        """Give up this side; what was put can still be taken. May be called again."""


class InSlots(ABC):
    """The receiver's side."""

    @abstractmethod
    def take(self, number: int, shape: tuple[int, ...], wait: Wait) -> Tensor:
        """Message `number`, of which the sender has told, on the receiver's device; frees the slot of the one before.

        Raises:
            LinkTimeout: it is not there in time; may be called again.
            LinkClosed: the sender has ended before it was there.
        """

    @abstractmethod
    def close(self) -> None:
        """Give up this side; a tensor that is in use stays what it is. May be called again."""


class HostOut(OutSlots):
    """Copies into shared memory, from a CPU."""

    def __init__(self, memory: SlotMemory) -> None:
        self._memory = memory

    def put(self, number: int, tensor: Tensor, wait: Wait) -> None:
        """See `OutSlots.put`; waits for nothing."""
        self._memory.message(number, tuple(tensor.shape)).copy_(tensor)

    def close(self) -> None:
        """See `OutSlots.close`; the memory goes with its last user."""


class HostIn(InSlots):
    """Hands out the shared memory itself, to a CPU."""

    def __init__(self, memory: SlotMemory, device: torch.device) -> None:
        self._memory, self._device = memory, device

    def take(self, number: int, shape: tuple[int, ...], wait: Wait) -> Tensor:
        """See `InSlots.take`; waits for nothing."""
        return self._memory.message(number, shape).to(self._device)

    def close(self) -> None:
        """See `InSlots.close`; the memory goes with its last user."""
