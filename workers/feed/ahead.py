"""Batches that arrive in host memory are taken one ahead, and copied to the GPU while it computes on the one before.

A thread takes the next batch as soon as the step before the current one has released its slot (`device_slots`). So
what a training process holds is the batch that it computes on and the one after it, whatever waits on the link. The
process itself waits where no batch has come; its stream waits where one has come and its copy has not ended, which is
the only part of a copy that is time spent copying. On a CPU nothing is copied, and none of this is used.

The stages after the first do without. Between GPUs a link has no host memory in it if that can be (a ring, NCCL), and
whether it can is known when it is open, for one device or the other. Where it cannot, a queue copies from its pinned
slots in the stream that computes, for which the host does not wait either. To hide that copy too would take the GPU two
more batches, and a ring is most often given up because there is no room for batches (`launch.plan.deciding`). Nor could
a codec's codes be decoded on the host meanwhile: they are decoded where a serial run does it, or the bits may differ.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from math import inf
from typing import Generic, TypeVar

import torch
from torch import Tensor

from workers.feed.device_slots import SLOTS, Copies, CudaCopies, Slot
from workers.feed.feed import FeedBatch
from workers.links.base import LinkClosed, LinkTimeout, Receiver, seconds
from workers.links.messages import Header, Message
from workers.run.closable import Closable

POLL_SECONDS = 0.25
"""How long the thread waits at a time for a batch or for a free slot, before it looks whether it is to end."""
CLOSE_SECONDS = 5.0
"""Limit for its end; a thread that hangs in a link is left behind (it is a daemon)."""
Item = TypeVar("Item")


class BatchesAhead(Closable, Generic[Item]):
    """Calls a function in a thread for one batch after the other, one ahead of the caller.

    Args:
        fetch: the next item, with its batch in host memory until the next call; None where none has come within
            `POLL_SECONDS`. Its exceptions are raised by `take`, after the batches before; `StopIteration` ends all.
        nbytes: of the largest batch.
        copies: of the device.
    """

    def __init__(self, fetch: Callable[[], tuple[Item, Tensor] | None], nbytes: int, copies: Copies) -> None:
        self._fetch, self._copies = fetch, copies
        self._free = deque(Slot(copies, nbytes) for _ in range(SLOTS))
        self._freed = threading.Semaphore(SLOTS)
        self._ready: queue.SimpleQueue[tuple[Item, Slot] | BaseException] = queue.SimpleQueue()
        self._in_use: Slot | None = None
        self._over: BaseException | None = None
        self._closing = threading.Event()
        self._fruitless = 0
        """Calls of `fetch` that have returned None."""
        self._thread: threading.Thread | None = None

    def take(self, timeout: float) -> tuple[Item, Slot] | None:
        """The next item, and the slot that its batch is copied to; None where none has come in time.

        The batch taken before it is given up: what reads it has been launched.
        """
        if self._in_use is not None:
            self._in_use.release()
            self._free.append(self._in_use)
            self._in_use = None
            self._freed.release()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="batches ahead", daemon=True)
            self._thread.start()
        found = self._next(time.monotonic() + timeout)
        if isinstance(found, BaseException):
            self._over = found
            raise found
        if found is not None:
            self._in_use = found[1]
        return found

    def close(self) -> None:
        """Stop the thread, and wait for it; what it has fetched is lost."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(CLOSE_SECONDS)

    def _next(self, deadline: float) -> tuple[Item, Slot] | BaseException | None:
        """None once a whole call of `fetch` after the deadline was fruitless: one that takes longer is not late."""
        fruitless: int | None = None
        while self._over is None:
            with suppress(queue.Empty):
                return self._ready.get(timeout=POLL_SECONDS)
            if self._closing.is_set():
                return LinkClosed("no batch follows: this end was closed")
            if fruitless is not None and self._fruitless > fruitless:
                return None
            if fruitless is None and time.monotonic() >= deadline:
                fruitless = self._fruitless
        return self._over

    def _run(self) -> None:
        with self._copies.in_thread():
            try:
                while not self._closing.is_set():
                    if self._freed.acquire(timeout=POLL_SECONDS):
                        self._fill(self._free.popleft())
            except BaseException as error:
                self._ready.put(error)

    def _fill(self, slot: Slot) -> None:
        while not self._closing.is_set():
            found = self._fetch()
            if found is not None:
                slot.fill(found[1])
                self._ready.put((found[0], slot))
                return
            self._fruitless += 1


class AheadReceiver(Receiver):
    """A receiver of batches in host memory, which gives them on a GPU.

    Args:
        inner: gives tensors in host memory; called by a thread of this one alone, until the last batch has come.
        copies: of the device.
    """

    def __init__(self, inner: Receiver, copies: Copies) -> None:
        super().__init__(inner.address, inner.spec)
        self._inner, self._last = inner, False
        self._ahead: BatchesAhead[Header] = BatchesAhead(self._fetch, max(inner.spec.nbytes, 1), copies)

    def recv(self, timeout: float) -> Message:
        """See `Receiver.recv`."""
        found = self._ahead.take(timeout)
        self._meter("waiting")
        if found is None:
            raise LinkTimeout(f"{self.address}: {self.address.sender} sent nothing within {seconds(timeout)}")
        header, slot = found
        batch = slot.batch()
        self._meter("copying")  # what is left of it: most of the copy was made while the device computed
        return Message(header, batch)

    def waiting(self) -> int:
        """See `Receiver.waiting`; the batch that is on the device, or on its way there, is not among them."""
        return self._inner.waiting()

    def close(self) -> None:
        """See `Receiver.close`."""
        self._ahead.close()
        self._inner.close()

    def _fetch(self) -> tuple[Header, Tensor] | None:
        if self._last:
            raise StopIteration
        try:
            message = self._inner.recv(POLL_SECONDS)
        except LinkTimeout:
            return None
        self._last = message.header.last
        return message.header, message.tensor


class FeedOnDevice(Closable):
    """The batches of a feed in this process, each with a function that gives its views on `device`.

    Args:
        feed: in host memory; a thread of this takes them.
        nbytes: of the largest batch.
        device: where they are wanted.
        copies: of the device; those of CUDA for a GPU, none for a CPU.
    """

    def __init__(
        self, feed: Iterator[FeedBatch], nbytes: int, device: torch.device, copies: Copies | None = None
    ) -> None:
        if device.type == "cuda":
            copies = copies or CudaCopies(device)
        self._feed = feed
        self._ahead = None if copies is None else BatchesAhead(self._fetch, nbytes, copies)

    def __iter__(self) -> Iterator[tuple[FeedBatch, Callable[[], Tensor]]]:
        if self._ahead is None:
            for batch in self._feed:
                yield batch, partial(_itself, batch.views)
            return
        with suppress(StopIteration):
            while (found := self._ahead.take(inf)) is not None:
                yield found[0], found[1].batch

    def close(self) -> None:
        """Take no more of the feed; to be called before the feed is closed."""
        if self._ahead is not None:
            self._ahead.close()

    def _fetch(self) -> tuple[FeedBatch, Tensor]:
        batch = next(self._feed)
        return batch, batch.views


def _itself(views: Tensor) -> Tensor:
    return views


def ahead_on_device(inner: Receiver, device: torch.device) -> Receiver:
    """A receiver that gives what `inner`, which gives it in host memory, receives on `device`; itself for a CPU."""
    return AheadReceiver(inner, CudaCopies(device)) if device.type == "cuda" else inner
