"""Batches on their way to a device that does everything as late as it may: none is overwritten or waited for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.waiting import LIMIT, wait_until
from workers.feed.ahead import AheadReceiver, FeedOnDevice, ahead_on_device
from workers.feed.device_slots import SLOTS, Slot, StreamEvent
from workers.feed.feed import FeedBatch
from workers.links.base import LinkAddress, LinkClosed, LinkTimeout, Part, Receiver
from workers.links.messages import Header, Message, TensorSpec

ADDRESS = LinkAddress("link0", "coordinator", "stage 1", path="", key=b"", depth=2)
SPEC = TensorSpec((2, 4, 3), torch.uint8)
STEPS = 12


@dataclass
class Stream:
    """Work in order, which is done only when somebody waits for it."""

    lock: threading.RLock
    work: list[Callable[[], object]] = field(default_factory=list)
    done: int = 0

    def launch(self, work: Callable[[], object]) -> Point:
        with self.lock:
            self.work.append(work)
            return Point(self, len(self.work))


@dataclass
class Point:
    """An event of a `Stream`."""

    stream: Stream
    at: int

    def synchronize(self) -> None:
        with self.stream.lock:
            while self.stream.done < self.at:
                self.stream.done += 1
                self.stream.work[self.stream.done - 1]()


class LateCopies:
    """Two streams that are as far behind as they may be."""

    def __init__(self) -> None:
        lock = threading.RLock()
        self.compute, self.copying = Stream(lock), Stream(lock)
        self.memory: list[str] = []
        self.copies = 0

    def pinned(self, nbytes: int) -> Tensor:
        self.memory.append("host")
        return torch.zeros(nbytes, dtype=torch.uint8)

    def on_device(self, nbytes: int) -> Tensor:
        self.memory.append("device")
        return torch.zeros(nbytes, dtype=torch.uint8)

    def in_thread(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def copy(self, target: Tensor, source: Tensor, after: StreamEvent | None) -> StreamEvent:
        if after is not None:
            self.copying.launch(after.synchronize)
        self.copies += 1
        return self.copying.launch(lambda: target.copy_(source))

    def launched(self) -> StreamEvent:
        return self.compute.launch(lambda: None)

    def wait(self, event: StreamEvent) -> None:
        self.compute.launch(event.synchronize)


class Link(Receiver):
    """Gives batches in one piece of memory, as a feed does; each may be held until it is asked for."""

    def __init__(self, count: int = STEPS, held: bool = False) -> None:
        super().__init__(ADDRESS, SPEC)
        self.count, self.taken, self.closed = count, 0, False
        self.released = threading.Semaphore(0 if held else 10**6)
        self.error: Exception | None = None
        self._memory = torch.zeros(SPEC.shape, dtype=SPEC.dtype)

    def recv(self, timeout: float) -> Message:
        if self.error is not None:
            raise self.error
        assert self.taken < self.count, "asked for a batch after the last"
        if not self.released.acquire(timeout=min(timeout, 0.01)):
            raise LinkTimeout("nothing")
        step, self.taken = self.taken, self.taken + 1
        rows = 4 - step % 2  # as at the end of an epoch
        batch = self._memory[:, :rows]
        batch.copy_(content(step))
        return Message(Header(step, 0, (), last=step == self.count - 1), batch)

    def waiting(self) -> int:
        return self.count - self.taken

    def close(self) -> None:
        self.closed = True


def content(step: int) -> Tensor:
    shape = (2, 4 - step % 2, 3)
    return torch.from_numpy(np.random.default_rng(step).integers(0, 256, shape, dtype=np.uint8))


def test_every_step_reads_its_own_batch_however_late_the_device_is() -> None:
    copies, seen = LateCopies(), list[Tensor]()
    with AheadReceiver(Link(), copies) as end:
        for step in range(STEPS):
            message = end.recv(LIMIT)
            assert message.header == Header(step, 0, (), last=step == STEPS - 1)
            copies.compute.launch(lambda batch=message.tensor: seen.append(batch.clone()))
            assert len(seen) < max(step, 1), "a step was waited for"
    copies.launched().synchronize()
    assert [batch.tolist() for batch in seen] == [content(step).tolist() for step in range(STEPS)]


def test_a_step_takes_no_memory_and_one_copy() -> None:
    copies = LateCopies()
    with AheadReceiver(Link(), copies) as end:
        for step in range(STEPS):
            end.recv(LIMIT)
            assert copies.copies <= step + SLOTS
            assert copies.memory == ["host", "device"] * SLOTS
    assert copies.copies == STEPS


def test_one_batch_is_taken_ahead_and_no_more() -> None:
    link, copies = Link(), LateCopies()
    with AheadReceiver(link, copies) as end:
        for step in range(3):
            end.recv(LIMIT)
            wait_until(lambda step=step: copies.copies == step + SLOTS)
            assert link.taken == step + SLOTS
            assert end.waiting() == STEPS - step - SLOTS
    assert link.closed


def test_a_link_that_gives_nothing_times_out_and_may_be_asked_again() -> None:
    link = Link(held=True)
    with AheadReceiver(link, LateCopies()) as end:
        for step in range(2):
            with pytest.raises(LinkTimeout, match=r"^link0 .*: coordinator sent nothing within 0 s$"):
                end.recv(0.0)
            link.released.release()
            assert end.recv(LIMIT).header.step == step


def test_what_ends_a_link_comes_after_the_batches_before_and_stays() -> None:
    link = Link(held=True)
    link.released.release()
    with AheadReceiver(link, LateCopies()) as end:
        end.recv(LIMIT)
        link.error = LinkClosed("the sender has ended")
        for _ in range(2):
            with pytest.raises(LinkClosed, match="the sender has ended"):
                end.recv(LIMIT)


def test_a_receiver_that_was_closed_gives_nothing() -> None:
    end = AheadReceiver(Link(held=True), LateCopies())
    with pytest.raises(LinkTimeout):
        end.recv(0.0)
    end.close()
    with pytest.raises(LinkClosed):
        end.recv(LIMIT)


def test_waiting_for_a_batch_is_no_copying() -> None:
    parts: list[Part] = []
    with AheadReceiver(Link(), LateCopies()) as end:
        end.measure(parts.append)
        end.recv(LIMIT)
    assert parts == ["waiting", "copying"]


def test_on_a_cpu_nothing_is_put_between() -> None:
    link = Link()
    assert ahead_on_device(link, torch.device("cpu")) is link
    (views,) = [arrive() for _, arrive in FeedOnDevice(iter(fed(1)), SPEC.nbytes, torch.device("cpu"))]
    assert views.tolist() == content(0).tolist()


def fed(count: int) -> Iterator[FeedBatch]:
    for step in range(count):
        last = step == count - 1
        yield FeedBatch(step=step, epoch=0, last=last, views=content(step), samples=np.arange(4))


def test_a_run_in_one_process_has_its_feed_ahead_too() -> None:
    copies, seen = LateCopies(), list[Tensor]()
    with closing(FeedOnDevice(fed(STEPS), SPEC.nbytes, torch.device("cpu"), copies)) as batches:
        for _, arrive in batches:
            views = arrive()
            copies.compute.launch(lambda views=views: seen.append(views.clone()))
    copies.launched().synchronize()
    assert [views.tolist() for views in seen] == [content(step).tolist() for step in range(STEPS)]


def test_a_slot_is_written_again_after_the_step_on_it() -> None:
    """Whoever reads late reads what was there: the copy waits for it on the device, and the host for nothing."""
    copies, seen = LateCopies(), list[int]()
    slot = Slot(copies, 1)
    for number in (7, 8):
        slot.fill(torch.tensor([number], dtype=torch.uint8))
        batch = slot.batch()
        copies.compute.launch(lambda batch=batch: seen.append(int(batch)))
        slot.release()
    copies.launched().synchronize()
    assert seen == [7, 8]
