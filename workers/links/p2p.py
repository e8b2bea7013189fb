"""The link between processes of any hosts, by point-to-point transfers of Gloo or NCCL into posted receive buffers.

Headers, credits and closing are those of `framed`; the tensors are transferred by a `Pair`: Gloo, or NCCL where each
end has a GPU of its own. The receiver has `depth + 1` slots. It posts the receive into a slot before it gives the
sender the credit for the message, so every message in flight has a buffer. A thread of the receiver waits for the
transfers: so `recv` can time out, and a close can be confirmed, without interrupting a transfer. The socket is
authenticated; the transfers of Gloo and NCCL are not, so use a private network.
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
from workers.links.base import LinkAddress, LinkBuffers, LinkClosed, LinkTimeout, seconds
from workers.links.connecting import accept_sender, closed_on_error, connect_to_receiver, exchange_hellos
from workers.links.framed import ARRIVED, CLOSING, FramedReceiver, FramedSender
from workers.links.handshake import hello_bytes, parse_hello
from workers.links.messages import TensorSpec
from workers.links.pair_group import RECEIVER, SENDER, GlooPair, NcclPair, Pair, PendingReceive
from workers.links.store import LinkStore

FLUSH_SECONDS = 10.0
"""Longest wait of `close` for messages that are still in flight."""

PAIR_SECONDS = 20.0
"""Limit for two processes that have exchanged hellos to form their pair."""

LOCALHOST = "127.0.0.1"
_log = logging.getLogger(__name__)


class P2pSender(FramedSender):
    """Sends from the caller's memory without a copy where possible; opened by `open_p2p_sender`.

    A tensor is referenced until its message has been taken. One that is smaller than the link's largest, strided or
    on another device is copied first, because a whole slot is transferred.
    """

    def __init__(self, address: LinkAddress, spec: TensorSpec, connection: Connection, pair: Pair) -> None:
        super().__init__(address, spec, connection)
        self._pair: Pair | None = pair
        self._in_flight: deque[tuple[int, list[Work], Tensor]] = deque()

    def _send_tensor(self, number: int, tensor: Tensor, deadline: float) -> None:
        assert self._pair is not None  # there was room, so this end is open
        while self._in_flight and self._in_flight[0][0] < self._taken:
            self._pair.wait_sent(self._in_flight.popleft()[1])
        payload = _whole_slot(tensor, _slot_bytes(self.spec), self._pair.device)
        self._in_flight.append((number, self._pair.send(payload), payload))

    def _release(self) -> None:
        if self._pair is None:
            return
        deadline = time.monotonic() + FLUSH_SECONDS
        while self._closed_because is None and self._taken < self._sent and not self._all_arrived:
            if not self._connection.poll(max(deadline - time.monotonic(), 0.0)):
                _log.warning("%s: messages may be lost: %s did not confirm them", self.address, self.address.receiver)
                break
            self._read_answers()
        self._pair.close()
        self._pair = None
        self._in_flight.clear()


class P2pReceiver(FramedReceiver):
    """Returns the slots that messages were received into; opened by `open_p2p_receiver`."""

    def __init__(
        self, address: LinkAddress, spec: TensorSpec, connection: Connection, device: torch.device, pair: Pair
    ) -> None:
        super().__init__(address, spec, connection, device)
        self._pair: Pair | None = pair
        size = _slot_bytes(spec)
        self._slots = [torch.empty(size, dtype=torch.uint8, device=pair.device) for _ in range(address.depth + 1)]
        self._receives: list[PendingReceive] = [pair.post_receive(slot) for slot in self._slots]
        self._changed = threading.Condition()
        self._arrived: deque[bytes] = deque()
        self._ended: bytes | None = None
        """`CLOSING` if the sender has closed its end, empty if it ended without that, None while it lives."""
        self._writing = threading.Lock()
        self._thread = threading.Thread(target=self._track_receives, name=f"{address.name}-arrivals", daemon=True)
        self._thread.start()

    def waiting(self) -> int:
        """See `Receiver.waiting`; counts messages that have arrived."""
        return len(self._arrived)

    def _tensor_of(self, number: int, shape: tuple[int, ...], deadline: float) -> Tensor:
        assert self._pair is not None  # there was a frame, so this end is open
        if number:
            free = (number - 1) % len(self._slots)
            self._receives[free] = self._pair.post_receive(self._slots[free])
        size = torch.Size(shape).numel() * self.spec.dtype.itemsize
        return self._slots[number % len(self._slots)][:size].view(self.spec.dtype).view(shape).to(self._device)

    def _release(self) -> None:
        if self._pair is None:
            return
        self._pair.close()
        with contextlib.suppress(OSError), wire.as_socket(self._connection) as sock:
            sock.shutdown(socket.SHUT_RD)  # ends the wait of the thread; what was written is still sent
        self._thread.join(FLUSH_SECONDS)
        self._pair, self._receives, self._slots = None, [], []
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

    def _track_receives(self) -> None:
        number, ended = 0, b""
        with contextlib.suppress(OSError, EOFError):
            while (frame := self._await_frame()) != CLOSING:
                self._receives[number % len(self._receives)].wait(self._sender_lives)
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
        self._connection.poll(None)  # ends when the sender does, or when this end is shut down
        return super()._read_frame()

    def _sender_lives(self) -> bool:
        return not wire.has_ended(self._connection)


def p2p_buffers(spec: TensorSpec, depth: int) -> LinkBuffers:
    """What a link for messages of `spec` holds: the slots, and the messages that were not taken yet."""
    slot = _slot_bytes(spec)
    return LinkBuffers(message=spec.nbytes, sending=depth * slot, receiving=(depth + 1) * slot)


def open_p2p_sender(
    address: LinkAddress, spec: TensorSpec, timeout: float, codec: str, device: torch.device
) -> P2pSender:
    """Connect to the receiver, exchange hellos and form a pair. Raises the three link errors."""
    deadline = time.monotonic() + timeout
    connection = connect_to_receiver(address, timeout)
    with closed_on_error(connection):
        pair = _form_pair(address, connection, _hello(address, spec, codec, device), device, deadline, rank=SENDER)
    return P2pSender(address, spec, connection, pair)


def open_p2p_receiver(
    address: LinkAddress, spec: TensorSpec, timeout: float, codec: str, device: torch.device
) -> P2pReceiver:
    """Wait for the sender, exchange hellos and form a pair. Raises the three link errors."""
    deadline = time.monotonic() + timeout
    connection = accept_sender(address, timeout)
    with closed_on_error(connection):
        pair = _form_pair(address, connection, _hello(address, spec, codec, device), device, deadline, rank=RECEIVER)
        return P2pReceiver(address, spec, connection, device, pair)


def _hello(address: LinkAddress, spec: TensorSpec, codec: str, device: torch.device) -> bytes:
    gpu = str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else ""
    return hello_bytes(address, spec, "p2p", codec, nonce=os.urandom(8).hex(), gpu=gpu)


def _form_pair(
    address: LinkAddress, connection: Connection, ours: bytes, device: torch.device, deadline: float, rank: int
) -> Pair:
    theirs = exchange_hellos(connection, address, ours, deadline, sending=rank == SENDER)
    return _pair(address, connection, (ours, theirs) if rank == SENDER else (theirs, ours), device, deadline, rank)


def _pair(
    address: LinkAddress,
    connection: Connection,
    hellos: tuple[bytes, bytes],
    device: torch.device,
    deadline: float,
    rank: int,
) -> Pair:
    """A pair over Gloo, or NCCL where each end has its own GPU; `hellos` are of sender and receiver."""
    stated = [parse_hello(address, hello) for hello in hellos]
    sender_gpu, receiver_gpu = (str(hello["gpu"]) for hello in stated)
    store = LinkStore(address).for_connection("-".join(str(hello["nonce"]) for hello in stated))
    limit = min(max(deadline - time.monotonic(), 1.0), PAIR_SECONDS)
    peer = address.receiver if rank == SENDER else address.sender
    try:
        if sender_gpu and receiver_gpu and sender_gpu != receiver_gpu:
            return NcclPair(store, rank, device, limit)
        return GlooPair(store, rank, _own_host(connection), limit)
    except ConnectionError as error:
        if connection.poll(0):  # nothing is expected yet, so this is the end of the connection
            raise LinkClosed(f"{address}: {peer} ended while the link was being opened") from None
        raise LinkTimeout(f"{address}: {peer} did not form a pair within {seconds(limit)} ({error})") from None


def _own_host(connection: Connection) -> str:
    """Address of the interface through which this process reaches the other."""
    with wire.as_socket(connection) as sock:
        name = sock.getsockname()
    return LOCALHOST if isinstance(name, str) else str(name[0])


def _slot_bytes(spec: TensorSpec) -> int:
    return max(spec.nbytes, 1)


def _whole_slot(tensor: Tensor, size: int, device: torch.device) -> Tensor:
    """The bytes of a tensor as a vector of `size` bytes on `device`; copies only where necessary."""
    packed = tensor.to(device).contiguous().reshape(-1).view(torch.uint8)
    if packed.numel() == size:
        return packed
    slot = torch.zeros(size, dtype=torch.uint8, device=device)
    slot[: packed.numel()] = packed
    return slot
