"""The link between two processes of any hosts by send and receive, into buffers that wait for the messages.

Headers, credits and closing are those of `framed`; the tensors take a way of their own, a `Pair`: Gloo, or NCCL
where both ends are on GPUs of their own. The receiver has `depth + 1` slots and asks for a slot's next message before
it lets the sender send one, so every message that can be on its way has its place. A thread of the receiver notes
what has arrived; it is what lets a receive give up in time, and an orderly close be confirmed, without being disturbed
in the transfer. The socket is authenticated; the transfers of Gloo and NCCL are not, so use a network of your own.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections import deque
from multiprocessing.connection import Connection

import torch
from torch import Tensor
from torch.distributed import Work

from workers.links import wire
from workers.links.base import LinkAddress, LinkClosed, LinkTimeout, seconds
from workers.links.connecting import agree, await_sender, closed_on_error, connect_to_receiver
from workers.links.framed import ARRIVED, CLOSING, FramedReceiver, FramedSender
from workers.links.handshake import hello_bytes, parse_hello
from workers.links.messages import TensorSpec
from workers.links.pair_group import RECEIVER, SENDER, GlooPair, NcclPair, Pair, PendingReceive
from workers.links.store import LinkStore

FLUSH_SECONDS = 10.0
"""Longest wait of an orderly close for messages that are still on the wire."""

PAIR_SECONDS = 20.0
"""Two live processes that have just agreed form their pair within this."""

LOCALHOST = "127.0.0.1"
_log = logging.getLogger(__name__)


class P2pSender(FramedSender):
    """Sends straight from the caller's memory where it can; opened by `open_p2p_sender`.

    A tensor is kept until its message has been taken. One that is smaller than the link's largest, strided or on
    another device is copied first: a slot always travels whole.
    """

    def __init__(self, address: LinkAddress, spec: TensorSpec, connection: Connection, pair: Pair) -> None:
        super().__init__(address, spec, connection)
        self._pair: Pair | None = pair
        self._on_its_way: deque[tuple[int, list[Work], Tensor]] = deque()

    def _carry(self, number: int, tensor: Tensor) -> None:
        assert self._pair is not None  # there was room, so this end is open
        while self._on_its_way and self._on_its_way[0][0] < self._taken:
            self._pair.settle(self._on_its_way.popleft()[1])
        payload = _whole_slot(tensor, _slot_bytes(self.spec), self._pair.device)
        self._on_its_way.append((number, self._pair.send(payload), payload))

    def _let_go(self) -> None:
        if self._pair is None:
            return
        deadline = time.monotonic() + FLUSH_SECONDS
        while self._over is None and self._taken < self._sent and not self._all_arrived:
            if not self._connection.poll(max(deadline - time.monotonic(), 0.0)):
                _log.warning("%s: messages may be lost: %s did not confirm them", self.address, self.address.receiver)
                break
            self._read_answers()
        self._pair.close()
        self._pair = None
        self._on_its_way.clear()


class P2pReceiver(FramedReceiver):
    """Hands out the slots that messages were received into; opened by `open_p2p_receiver`."""

    def __init__(
        self, address: LinkAddress, spec: TensorSpec, connection: Connection, device: torch.device, pair: Pair
    ) -> None:
        super().__init__(address, spec, connection, device)
        self._pair: Pair | None = pair
        size = _slot_bytes(spec)
        self._slots = [torch.empty(size, dtype=torch.uint8, device=pair.device) for _ in range(address.depth + 1)]
        self._arrivals: list[PendingReceive] = [pair.expect(slot) for slot in self._slots]
        self._changed = threading.Condition()
        self._arrived: deque[bytes] = deque()
        self._ended: bytes | None = None
        """How the sender left: it said so, or (empty) it did not."""
        self._writing = threading.Lock()
        self._thread = threading.Thread(target=self._note_arrivals, name=f"{address.name}-arrivals", daemon=True)
        self._thread.start()

    def waiting(self) -> int:
        """See `Receiver.waiting`; counts what has arrived."""
        return len(self._arrived)

    def _fetch(self, number: int, shape: tuple[int, ...]) -> Tensor:
        assert self._pair is not None  # there was a frame, so this end is open
        if number:
            free = (number - 1) % len(self._slots)
            self._arrivals[free] = self._pair.expect(self._slots[free])
        size = torch.Size(shape).numel() * self.spec.dtype.itemsize
        return self._slots[number % len(self._slots)][:size].view(self.spec.dtype).view(shape).to(self._device)

    def _let_go(self) -> None:
        if self._pair is None:
            return
        self._pair.close()
        with contextlib.suppress(OSError), wire.as_socket(self._connection) as sock:
            sock.shutdown(socket.SHUT_RD)  # ends the thread's wait; what was written still leaves
        self._thread.join(FLUSH_SECONDS)
        self._pair, self._arrivals, self._slots = None, [], []
        self._arrived.clear()

    def _frame_within(self, timeout: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: bool(self._arrived) or self._ended is not None, timeout)

    def _read_frame(self) -> bytes:
        if self._arrived:
            return self._arrived.popleft()
        if not self._ended:
            raise EOFError
        return self._ended

    def _answer(self, answer: bytes) -> None:
        with self._writing:
            super()._answer(answer)

    def _note_arrivals(self) -> None:
        number, ended = 0, b""
        with contextlib.suppress(OSError, EOFError):
            while (frame := self._await_frame()) != CLOSING:
                self._arrivals[number % len(self._arrivals)].wait(self._sender_lives)
                number += 1
                with self._changed:
                    self._arrived.append(frame)
                    self._changed.notify_all()
            ended = CLOSING
            self._answer(ARRIVED)
        with self._changed:
            self._ended = ended
            self._changed.notify_all()

    def _await_frame(self) -> bytes:
        self._connection.poll(None)  # in the end the sender goes, or this end is shut down
        return super()._read_frame()

    def _sender_lives(self) -> bool:
        return not wire.has_ended(self._connection)


def open_p2p_sender(
    address: LinkAddress, spec: TensorSpec, timeout: float, codec: str, device: torch.device
) -> P2pSender:
    """Connect to the receiver, agree, and form a pair with it. Raises the three link errors."""
    deadline = time.monotonic() + timeout
    connection = connect_to_receiver(address, timeout)
    with closed_on_error(connection):
        ours = _hello(address, spec, codec, device)
        theirs = agree(connection, address, ours, deadline, sending=True)
        pair = _pair(address, connection, (ours, theirs), device, deadline, rank=SENDER)
    return P2pSender(address, spec, connection, pair)


def open_p2p_receiver(
    address: LinkAddress, spec: TensorSpec, timeout: float, codec: str, device: torch.device
) -> P2pReceiver:
    """Listen until the right sender has connected, agree, and form a pair with it. Raises the three link errors."""
    deadline = time.monotonic() + timeout
    connection = await_sender(address, timeout)
    with closed_on_error(connection):
        ours = _hello(address, spec, codec, device)
        theirs = agree(connection, address, ours, deadline, sending=False)
        pair = _pair(address, connection, (theirs, ours), device, deadline, rank=RECEIVER)
        return P2pReceiver(address, spec, connection, device, pair)


def _hello(address: LinkAddress, spec: TensorSpec, codec: str, device: torch.device) -> bytes:
    gpu = str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else ""
    return hello_bytes(address, spec, "p2p", codec, nonce=os.urandom(8).hex(), gpu=gpu)


def _pair(
    address: LinkAddress,
    connection: Connection,
    hellos: tuple[bytes, bytes],
    device: torch.device,
    deadline: float,
    rank: int,
) -> Pair:
    """Of Gloo, or of NCCL where each end has a GPU of its own; `hellos` are the sender's and the receiver's."""
    stated = [parse_hello(address, hello) for hello in hellos]
    sender_gpu, receiver_gpu = (str(hello["gpu"]) for hello in stated)
    store = LinkStore(address).of_opening("-".join(str(hello["nonce"]) for hello in stated))
    limit = min(max(deadline - time.monotonic(), 1.0), PAIR_SECONDS)
    peer = address.receiver if rank == SENDER else address.sender
    try:
        if sender_gpu and receiver_gpu and sender_gpu != receiver_gpu:
            return NcclPair(store, rank, device, limit)
        return GlooPair(store, rank, _own_host(connection), limit)
    except ConnectionError as error:
        if connection.poll(0):  # nothing is due yet: it is the end
            raise LinkClosed(f"{address}: {peer} ended while the link was being opened") from None
        raise LinkTimeout(f"{address}: {peer} did not form a pair within {seconds(limit)} ({error})") from None


def _own_host(connection: Connection) -> str:
    """The interface by which this process reaches the other."""
    with wire.as_socket(connection) as sock:
        name = sock.getsockname()
    return LOCALHOST if isinstance(name, str) else str(name[0])


def _slot_bytes(spec: TensorSpec) -> int:
    return max(spec.nbytes, 1)


def _whole_slot(tensor: Tensor, size: int, device: torch.device) -> Tensor:
    """The bytes of a tensor as a vector of `size` bytes on `device`, without a copy where that is what it is."""
    packed = tensor.to(device).contiguous().reshape(-1).view(torch.uint8)
    if packed.numel() == size:
        return packed
    slot = torch.zeros(size, dtype=torch.uint8, device=device)
    slot[: packed.numel()] = packed
    return slot
