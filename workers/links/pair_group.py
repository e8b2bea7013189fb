"""Point-to-point transfers between two processes, by a process group of exactly two over Gloo or NCCL.

    sender                     receiver
                               post_receive(slot)   the buffer is ready before the sender may send
    send(payload)              ...                  returns at once; the payload must stay alive
    (a frame announces it)     pending.wait(alive)  until the payload is in the slot, or the sender has died
    wait_sent(works)           (credit sent)        after the credit the payload may be reused

The groups are constructed directly from a store, because `torch.distributed`'s default group belongs to the replicas of
a stage. A payload is a vector of bytes that fills a slot: neither backend defines a receive of less than it expects.
Connections of both are neither authenticated nor encrypted; Gloo's port is filtered once the pair has formed.
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
"""Timeout of transfers, which is never meant to expire: closing the pair or the death of the peer ends them earlier."""

POLL_SECONDS = 1e-4
_PAYLOADS, _RECEIPTS, _NEVER_USED = 0, 1, 2
"""Tags of messages."""


class PendingReceive(Protocol):
    """A receive that has been posted."""

    def wait(self, alive: Callable[[], bool]) -> None:
        """Return when the payload is in the slot and any thread and stream may read it.

        Args:
            alive: returns whether the sender's process is still alive.

        Raises:
            ConnectionError: the payload will not arrive.
        """


class Pair(ABC):
    """One end of a pair; the lower rank sends."""

    device: torch.device
    """Device of payloads and slots."""

    @abstractmethod
    def send(self, payload: Tensor) -> list[Work]:
        """Start to send `payload`, which must not change until `wait_sent` has returned. Raises `ConnectionError`."""

    @abstractmethod
    def post_receive(self, slot: Tensor) -> PendingReceive:
        """Receive the next payload into `slot`; work that reads its old content must have been queued before."""

    @abstractmethod
    def close(self) -> None:
        """Abort all transfers; waits for them raise `ConnectionError`."""

    def wait_sent(self, works: list[Work]) -> None:
        """Wait for a send that the receiver has confirmed. Raises `ConnectionError`."""
        with _connection_errors():
            for work in works:
                work.wait()


class GlooPair(Pair):
    """Over TCP, between processes on CPUs. The constructor waits for the other process.

    Every payload is followed by a receipt of one byte. Gloo does not wake a thread that waits for a message of which a
    part has arrived, neither when the sender dies nor when the pair is closed; a message that has not begun does fail:

        sender dies     before the payload    within the payload      after the receipt
        wait(payload)   fails                 hangs for ever          returns
        wait(receipt)   fails                 fails                   returns

    So a receiver waits for the receipt, which comes last, and only then for the payload.

    Args:
        store: used for this pair only.
        rank: `SENDER` or `RECEIVER`.
        host: address of the interface to use.
        limit: seconds to wait for the other process.

    Raises:
        ConnectionError: the other process did not join.
    """

    def __init__(self, store: Store, rank: int, host: str, limit: float) -> None:
        self.device = torch.device("cpu")
        with _connection_errors(), closed_afterwards():
            self._group: Any = _gloo_group(store, rank, host, limit)
        self._peer = 1 - rank
        self._receipt = torch.zeros(1, dtype=torch.uint8)
        atexit.register(self.close)  # a group that exists when the interpreter ends aborts the process

    def send(self, payload: Tensor) -> list[Work]:
        """See `Pair.send`."""
        with _connection_errors():
            return [
                self._group.send([payload], self._peer, _PAYLOADS),
                self._group.send([self._receipt], self._peer, _RECEIPTS),
            ]

    def post_receive(self, slot: Tensor) -> PendingReceive:
        """See `Pair.post_receive`; a thread of Gloo receives from now on, whatever this process does."""
        try:
            payload = self._group.recv([slot], self._peer, _PAYLOADS)
            return _GlooReceive(payload, self._group.recv([torch.empty_like(self._receipt)], self._peer, _RECEIPTS))
        except RuntimeError as error:
            return _FailedReceive(str(error))

    def close(self) -> None:
        """See `Pair.close`."""
        atexit.unregister(self.close)
        group, self._group = self._group, None
        if group is None:
            return
        # Gloo's abort does not wake a waiting thread, but a wait that times out ends all transfers of its group.
        with contextlib.suppress(RuntimeError):
            group.recv([torch.empty_like(self._receipt)], self._peer, _NEVER_USED).wait(timedelta(seconds=1e-3))


def _gloo_group(store: Store, rank: int, host: str, limit: float) -> Any:
    """A group of two that listens on `host`; where PyTorch lacks the private options, GLOO_SOCKET_IFNAME decides."""
    private: Any = getattr(ProcessGroupGloo, "_Options", None)
    if private is None:
        return ProcessGroupGloo(store, rank, 2, timedelta(seconds=limit))
    options = private()
    options._timeout = timedelta(seconds=limit)
    options._threads = 1
    options._devices = [ProcessGroupGloo.create_device(hostname=host)]
    return ProcessGroupGloo(store, rank, 2, options)


class _GlooReceive:
    def __init__(self, payload: Work, receipt: Work) -> None:
        self._payload, self._receipt = payload, receipt

    def wait(self, alive: Callable[[], bool]) -> None:
        with _connection_errors():
            self._receipt.wait(ANNOUNCED_LIMIT)  # Gloo notices when the peer dies
            self._payload.wait(ANNOUNCED_LIMIT)


class _FailedReceive:
    def __init__(self, reason: str) -> None:
        self._reason = reason

    def wait(self, alive: Callable[[], bool]) -> None:
        raise ConnectionError(self._reason)


class NcclPair(Pair):
    """Between two GPUs. Arguments as `GlooPair`; the constructor waits for the other process.

    A receive of NCCL is a kernel that spins until the data arrive, and every device-wide synchronisation would wait for
    it. So the kernel is launched only when the frame of its message has arrived.

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
            self._warm_up(rank, time.monotonic() + limit)

    def _warm_up(self, rank: int, deadline: float) -> None:
        """Transfer one byte: NCCL connects at the first transfer, which would block the first send."""
        slot = torch.zeros(1, dtype=torch.uint8, device=self.device)
        if rank == RECEIVER:
            self.post_receive(slot).wait(lambda: time.monotonic() < deadline)
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

    def post_receive(self, slot: Tensor) -> PendingReceive:
        """See `Pair.post_receive`."""
        return _NcclReceive(self, slot)

    def close(self) -> None:
        """See `Pair.close`."""
        self.closed = True
        with contextlib.suppress(RuntimeError):
            self.group.abort()


class _NcclReceive:
    def __init__(self, pair: NcclPair, slot: Tensor) -> None:
        self._pair, self._slot = pair, slot
        self._free = torch.cuda.current_stream(pair.device).record_event()

    def wait(self, alive: Callable[[], bool]) -> None:
        pair = self._pair
        with _connection_errors(), torch.cuda.device(pair.device), torch.cuda.stream(pair.stream):
            pair.stream.wait_event(self._free)
            pair.group.recv([self._slot], pair.peer, _PAYLOADS).wait()
            arrived = pair.stream.record_event()
            while not arrived.query():
                if pair.closed or not alive():
                    pair.close()
                    raise ConnectionError("the pair was closed" if alive() else "the sender has ended")
                time.sleep(POLL_SECONDS)


@contextlib.contextmanager
def _connection_errors() -> Iterator[None]:
    """Turn the `RuntimeError` of both backends into `ConnectionError`."""
    try:
        yield
    except RuntimeError as error:
        raise ConnectionError(reason_of(error)) from None
