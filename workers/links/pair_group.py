"""Two processes that pass tensors to each other: a process group of exactly two, Gloo or NCCL.

The groups are made by hand from a store, so that `torch.distributed`'s default group, which belongs to the replicas
of a stage, is never touched. A payload is a vector of bytes, always of the full size of a slot: neither backend
promises what a receive does with less than it expects. Connections of both are neither authenticated nor encrypted;
Gloo's port admits nobody any more once the two have found each other.
"""

from __future__ import annotations

import atexit
import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.distributed import ProcessGroupGloo, Store, Work  # type: ignore[attr-defined]

from pipeline.errors import reason_of
from workers.links.listening import closed_afterwards

SENDER, RECEIVER = 0, 1
"""Ranks in the group."""

ANNOUNCED_LIMIT = timedelta(days=1)
"""For a transfer that both ends have begun: closing the pair, and the death of the peer, end it much earlier."""

POLL_SECONDS = 1e-4
_PAYLOADS, _RECEIPTS, _NEVER_USED = 0, 1, 2
"""Tags."""


class PendingReceive(Protocol):
    """A receive that has been asked for."""

    def wait(self, alive: Callable[[], bool]) -> None:
        """Return once the payload is there, to be read by any thread and stream.

        Args:
            alive: whether the sender's process still is.

        Raises:
            ConnectionError: it will not come.
        """


class Pair(ABC):
    """Two processes; the lower rank sends."""

    device: torch.device
    """Where payloads must be."""

    @abstractmethod
    def send(self, payload: Tensor) -> list[Work]:
        """Begin to send; the payload must be kept until `settle` has returned. Raises `ConnectionError`."""

    @abstractmethod
    def expect(self, slot: Tensor) -> PendingReceive:
        """Have the next payload put into `slot`, whose old content is not needed by what was asked of it so far."""

    @abstractmethod
    def close(self) -> None:
        """End every transfer that is under way; whoever waits for one gets `ConnectionError`."""

    def settle(self, works: list[Work]) -> None:
        """Wait for a send that the receiver has confirmed. Raises `ConnectionError`."""
        with _connection_errors():
            for work in works:
                work.wait()


class GlooPair(Pair):
    """Over TCP, between processes on CPUs. The constructor waits for the other process.

    After every payload a byte follows, the receipt. Gloo never wakes a thread that waits for a message of which a part
    has come, neither when the sender dies nor when the pair is closed; those that have not begun it does fail. So a
    receiver waits for the receipt, which comes last, and only then for the payload.

    Args:
        store: used for this pair only.
        rank: `SENDER` or `RECEIVER`.
        host: of this process's own interface.
        limit: seconds to wait for the other.

    Raises:
        ConnectionError: it did not come.
    """

    def __init__(self, store: Store, rank: int, host: str, limit: float) -> None:
        self.device = torch.device("cpu")
        with _connection_errors(), closed_afterwards():
            self._group: Any = _gloo_group(store, rank, host, limit)
        self._peer = 1 - rank
        self._receipt = torch.zeros(1, dtype=torch.uint8)
        atexit.register(self.close)  # a group that is still there when the interpreter ends aborts the process

    def send(self, payload: Tensor) -> list[Work]:
        """See `Pair.send`."""
        with _connection_errors():
            return [
                self._group.send([payload], self._peer, _PAYLOADS),
                self._group.send([self._receipt], self._peer, _RECEIPTS),
            ]

    def expect(self, slot: Tensor) -> PendingReceive:
        """See `Pair.expect`; Gloo's own thread receives from now on, whatever this process does."""
        try:
            payload = self._group.recv([slot], self._peer, _PAYLOADS)
            return _GlooArrival(payload, self._group.recv([torch.empty_like(self._receipt)], self._peer, _RECEIPTS))
        except RuntimeError as error:
            return _Failed(str(error))

    def close(self) -> None:
        """See `Pair.close`."""
        atexit.unregister(self.close)
        group, self._group = self._group, None
        if group is None:
            return
        # Gloo's own abort does not wake a thread that waits; a wait that times out ends all transfers of its group.
        with contextlib.suppress(RuntimeError):
            group.recv([torch.empty_like(self._receipt)], self._peer, _NEVER_USED).wait(timedelta(seconds=1e-3))


def _gloo_group(store: Store, rank: int, host: str, limit: float) -> Any:
    """A group of two that listens on `host`; without PyTorch's private options it listens where its variables say."""
    private: Any = getattr(ProcessGroupGloo, "_Options", None)
    if private is None:
        return ProcessGroupGloo(store, rank, 2, timedelta(seconds=limit))
    options = private()
    options._timeout = timedelta(seconds=limit)
    options._threads = 1
    options._devices = [ProcessGroupGloo.create_device(hostname=host)]
    return ProcessGroupGloo(store, rank, 2, options)


class _GlooArrival:
    def __init__(self, payload: Work, receipt: Work) -> None:
        self._payload, self._receipt = payload, receipt

    def wait(self, alive: Callable[[], bool]) -> None:
        with _connection_errors():
            self._receipt.wait(ANNOUNCED_LIMIT)  # Gloo notices by itself when the peer dies
            self._payload.wait(ANNOUNCED_LIMIT)


class _Failed:
    def __init__(self, reason: str) -> None:
        self._reason = reason

    def wait(self, alive: Callable[[], bool]) -> None:
        raise ConnectionError(self._reason)


class NcclPair(Pair):
    """Between two GPUs. Arguments as `GlooPair`; the constructor waits for the other process.

    A receive of NCCL is a kernel that spins until the data come, and every synchronisation of the whole device would
    wait for it. So a slot is ready all the time, and the kernel is launched when its message has been announced.

    Args:
        device: the GPU of this process; not that of the other.
        store, rank, limit: as `GlooPair`.
    """

    def __init__(self, store: Store, rank: int, device: torch.device, limit: float) -> None:
        from torch.distributed import ProcessGroupNCCL  # not in every build of torch

        self.device = device
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.closed = False
        options: Any = ProcessGroupNCCL.Options()
        options._timeout = ANNOUNCED_LIMIT
        with _connection_errors(), torch.cuda.device(device):
            self.group: Any = ProcessGroupNCCL(store, rank, 2, options)
            self.peer = 1 - rank
            self._meet(rank, time.monotonic() + limit)

    def _meet(self, rank: int, deadline: float) -> None:
        """Send one byte: NCCL connects at the first transfer, and a send would wait for that."""
        slot = torch.zeros(1, dtype=torch.uint8, device=self.device)
        if rank == RECEIVER:
            self.expect(slot).wait(lambda: time.monotonic() < deadline)
            return
        (work,) = self.send(slot)
        while not work.is_completed():
            if time.monotonic() >= deadline:
                self.close()
                raise ConnectionError("the other process did not join the pair")
            time.sleep(POLL_SECONDS)

    def send(self, payload: Tensor) -> list[Work]:
        """See `Pair.send`."""
        with _connection_errors(), torch.cuda.device(self.device):
            return [self.group.send([payload], self.peer, _PAYLOADS)]

    def expect(self, slot: Tensor) -> PendingReceive:
        """See `Pair.expect`."""
        return _NcclArrival(self, slot)

    def close(self) -> None:
        """See `Pair.close`."""
        self.closed = True
        with contextlib.suppress(RuntimeError):
            self.group.abort()


class _NcclArrival:
    def __init__(self, pair: NcclPair, slot: Tensor) -> None:
        self._pair, self._slot = pair, slot
        self._free = torch.cuda.current_stream(pair.device).record_event()

    def wait(self, alive: Callable[[], bool]) -> None:
        pair = self._pair
        with _connection_errors(), torch.cuda.device(pair.device), torch.cuda.stream(pair.stream):
            pair.stream.wait_event(self._free)
            pair.group.recv([self._slot], pair.peer, _PAYLOADS).wait()
            there = pair.stream.record_event()
            while not there.query():
                if pair.closed or not alive():
                    pair.close()
                    raise ConnectionError("the pair was closed" if alive() else "the sender has gone")
                time.sleep(POLL_SECONDS)


@contextlib.contextmanager
def _connection_errors() -> Iterator[None]:
    """Both backends fail with `RuntimeError`."""
    try:
        yield
    except RuntimeError as error:
        raise ConnectionError(reason_of(error)) from None
