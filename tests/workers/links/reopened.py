"""A link whose ends are opened again and again, in threads of one process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch

from tests.waiting import LIMIT
from workers.links.base import LinkAddress, Receiver, Sender
from workers.links.factory import CPU, open_receiver, open_sender
from workers.links.messages import Header, TensorSpec
from workers.links.replay import ReplayBuffer
from workers.links.replaying import ReplayingSender, ResumingReceiver
from workers.links.resharding import RowRange, gather_receiver

SPEC = TensorSpec((2, 3), torch.float32)
BYTES = 24
T = TypeVar("T")


def header(step: int) -> Header:
    return Header(step, 0, (0.0,), last=False, learner=None, snapshot=False, leave=False, labels=b"")


def batch(step: int) -> torch.Tensor:
    return torch.full((2, 3), float(step))


class Link:
    """Opens the ends of one queue link, as often as asked, in the threads of one process."""

    def __init__(self, folder: Path, depth: int = 2) -> None:
        self.folder = folder
        self.address = LinkAddress("link1", "stage 1", "stage 2", path=str(folder / "l"), key=b"key", depth=depth)
        self._threads = ThreadPoolExecutor(8)

    def sender(self) -> Sender:
        return open_sender("queue", self.address, SPEC, LIMIT)

    def receiver(self, timeout: float = LIMIT) -> Receiver:
        return open_receiver("queue", self.address, SPEC, timeout)

    def log(self) -> ReplayBuffer:
        return ReplayBuffer(self.folder / "log")

    def soon(self, call: Callable[[], T]) -> Future[T]:
        return self._threads.submit(call)

    @contextmanager
    def serving(self, serve: Callable[[], None]) -> Iterator[None]:
        """Call it again and again, as a process does that has nothing more to do."""
        over = threading.Event()

        def body() -> None:
            while not over.is_set():
                serve()

        done = self.soon(body)
        yield
        over.set()
        done.result(LIMIT)

    def both(self, log: ReplayBuffer, start_step: int = 0) -> tuple[ReplayingSender, ResumingReceiver]:
        receiver = self.soon(lambda: ResumingReceiver(self.receiver, LIMIT, start_step))
        return ReplayingSender(self.sender, log, LIMIT), receiver.result(LIMIT)


def dies(end: Sender | Receiver) -> None:
    """As the kernel does it for a process that is killed: its sockets are closed, and nothing is said."""
    inner: Any = end
    while hasattr(inner, "_inner"):
        inner = inner._inner
    inner._connection.close()


def joined(ends: list[ResumingReceiver]) -> Receiver:
    """One receiver of what two replicas send, each of them half of a batch."""
    ways = [RowRange(number, 0, 2, 1) for number in range(2)]
    return gather_receiver(list(zip(ways, ends, strict=True)), TensorSpec((2, 6), torch.float32), CPU)


def steps(receiver: Receiver, count: int) -> list[int]:
    found = []
    for _ in range(count):
        message = receiver.recv(LIMIT)
        assert torch.equal(message.tensor, batch(message.header.step))
        found.append(message.header.step)
    return found
