"""The link between two processes of one host: messages in shared memory, their headers over a Unix socket.

The sender copies a tensor into the next slot of a nameless shared memory and sends the header; the
receiver uses the slot in place. For every message taken, one byte travels back and allows one more,
so memory is bounded by construction. Tensors on a GPU pass through host memory. When a process dies
the kernel closes its socket, which is how the other end learns of it at once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import struct
import time
from collections.abc import Iterator
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection

import torch
from torch import Tensor

from pipeline.errors import TrainingError
from workers.links import wire
from workers.links.base import LinkAddress, LinkClosed, LinkMismatch, LinkTimeout, Receiver, Sender, seconds
from workers.links.handshake import MAX_HELLO_BYTES, compare_hellos, hello_bytes
from workers.links.memory import SlotMemory, memory_file
from workers.messages import MAX_HEADER_BYTES, Header, Message, TensorSpec

TAKEN, CLOSING = b"+", b"x"
STRANGER_SECONDS = 2.0
"""A connection that does not authenticate within this is dropped, so that the right one gets its turn."""

_GONE = (BrokenPipeError, ConnectionResetError, EOFError)
_log = logging.getLogger(__name__)


class QueueSender(Sender):
    """Copies into shared memory; opened by `open_queue_sender`."""

    def __init__(self, address: LinkAddress, spec: TensorSpec, connection: Connection, memory: SlotMemory) -> None:
        super().__init__(address, spec)
        self._connection = connection
        self._memory: SlotMemory | None = memory
        self._sent = self._taken = 0
        self._over: str | None = None

    def send(self, header: Header, tensor: Tensor, timeout: float) -> None:
        """See `Sender.send`; the tensor has been read when the call returns."""
        self._check_fits(tuple(tensor.shape), tensor.dtype)
        self._wait_for_room(timeout)
        if self._over is not None or self._memory is None:
            raise LinkClosed(f"{self.address}: cannot send message {self._sent}: {self._over}")
        self._memory.message(self._sent, tuple(tensor.shape)).copy_(tensor.detach())
        self._memory.sent = self._sent + 1
        try:
            self._connection.send_bytes(_frame(header, tensor))
        except OSError as error:
            self._read_answers()  # the receiver may have said that it closes
            self._end(f"{self.address.receiver} cannot be reached ({error.strerror})")
            raise LinkClosed(f"{self.address}: message {self._sent} was not sent: {self._over}") from None
        self._sent += 1
        self.bytes_sent += tensor.numel() * tensor.element_size()

    def close(self) -> None:
        """Say that no more follows; what was sent can still be received."""
        with contextlib.suppress(OSError):
            self._connection.send_bytes(CLOSING)
        self._end("this end was closed")
        self._connection.close()
        self._memory = None

    def _wait_for_room(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while self._over is None and self._sent - self._taken >= self.address.depth:
            if not self._connection.poll(max(deadline - time.monotonic(), 0.0)):
                raise LinkTimeout(
                    f"{self.address}: no room within {seconds(timeout)}: {self.address.receiver} has not taken any of "
                    f"the {self.address.depth} messages that wait (link.depth)"
                )
            self._read_answers()

    def _read_answers(self) -> None:
        try:
            while self._over is None and self._connection.poll(0):
                if self._connection.recv_bytes(1) == TAKEN:
                    self._taken += 1
                else:
                    self._end(f"{self.address.receiver} closed its end")
        except (*_GONE, OSError):
            self._end(f"{self.address.receiver} ended without closing the link")

    def _end(self, reason: str) -> None:
        self._over = self._over or reason


class QueueReceiver(Receiver):
    """Hands out shared memory; opened by `open_queue_receiver`."""

    def __init__(
        self, address: LinkAddress, spec: TensorSpec, connection: Connection, memory: SlotMemory, device: torch.device
    ) -> None:
        super().__init__(address, spec)
        self._connection = connection
        self._memory: SlotMemory | None = memory
        self._device = device
        self._received = 0
        self._over: str | None = None

    def recv(self, timeout: float) -> Message:
        """See `Receiver.recv`. On the CPU the tensor is the shared memory itself; a GPU gets a copy."""
        header, shape = _unframe(self._next_frame(timeout))
        self._check_fits(shape, self.spec.dtype)
        assert self._memory is not None  # there was a frame, so this end is open
        tensor = self._memory.message(self._received, shape)
        if self._device.type != "cpu":
            tensor = tensor.to(self._device)
        self._received += 1
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # sent, closed and gone is in order
            self._connection.send_bytes(TAKEN)
        return Message(header, tensor)

    def waiting(self) -> int:
        """See `Receiver.waiting`; the count is the sender's own, kept in the shared memory."""
        memory = self._memory
        return 0 if memory is None else max(memory.sent - self._received, 0)

    def close(self) -> None:
        """Tell the sender, and let go of the memory (a tensor still held keeps it alive)."""
        with contextlib.suppress(OSError):
            self._connection.send_bytes(CLOSING)
        self._over = self._over or "this end was closed"
        self._connection.close()
        self._memory = None

    def _next_frame(self, timeout: float) -> bytes:
        what = f"{self.address}: message {self._received} cannot be received"
        if self._over is None:
            try:
                if not self._connection.poll(max(timeout, 0.0)):
                    raise LinkTimeout(
                        f"{self.address}: {self.address.sender} sent nothing within {seconds(timeout)} "
                        f"(waiting for message {self._received})"
                    )
                frame = self._connection.recv_bytes(MAX_HEADER_BYTES + 1024)
                if frame != CLOSING:
                    return frame
                self._over = f"{self.address.sender} closed its end after {self._received} messages"
            except (*_GONE, OSError):
                self._over = f"{self.address.sender} ended without closing the link"
        raise LinkClosed(f"{what}: {self._over}")


def open_queue_sender(address: LinkAddress, spec: TensorSpec, timeout: float) -> QueueSender:
    """Connect to the receiver, agree, and hand it the memory. Raises the three link errors."""
    deadline = time.monotonic() + timeout
    try:
        connection = wire.connect(address.path, address.key, timeout)
    except AuthenticationError:
        raise LinkMismatch(
            f"{address}: {address.receiver} refused the key of {address.sender}. Both must belong to the same run"
        ) from None
    except TimeoutError as error:
        raise LinkTimeout(f"{address}: no receiver within {seconds(timeout)}: {error}") from None
    with _closed_on_error(connection):
        ours = hello_bytes(address, spec)
        theirs = _swap_hellos(connection, address, address.receiver, ours, deadline)
        compare_hellos(address, sender=ours, receiver=theirs)
        with memory_file(spec, address.depth, str(address)) as descriptor, wire.as_socket(connection) as sock:
            memory = SlotMemory(descriptor, spec, address.depth)
            socket.send_fds(sock, [TAKEN], [descriptor])
    return QueueSender(address, spec, connection, memory)


def open_queue_receiver(address: LinkAddress, spec: TensorSpec, timeout: float, device: torch.device) -> QueueReceiver:
    """Listen until the right sender has connected, and map its memory. Raises the three link errors."""
    deadline = time.monotonic() + timeout
    connection = _await_sender(address, timeout)
    with _closed_on_error(connection):
        ours = hello_bytes(address, spec)
        theirs = _swap_hellos(connection, address, address.sender, ours, deadline)
        compare_hellos(address, sender=theirs, receiver=ours)
        descriptor = _receive_descriptor(connection, address, spec, deadline)
        try:
            memory = SlotMemory(descriptor, spec, address.depth)
        finally:
            os.close(descriptor)
    return QueueReceiver(address, spec, connection, memory, device)


def _await_sender(address: LinkAddress, timeout: float) -> Connection:
    deadline = time.monotonic() + timeout
    refused = 0
    try:
        with contextlib.closing(wire.listen(address.path)) as listener:
            while True:
                accepted = wire.accept(listener, deadline - time.monotonic())
                limit = min(STRANGER_SECONDS, max(deadline - time.monotonic(), 0.01))
                try:
                    return wire.welcome(accepted, address.key, limit)
                except (AuthenticationError, EOFError, OSError) as error:
                    refused += 1
                    _log.warning("%s: refused a connection that is not %s's (%s)", address, address.sender, error)
    except TimeoutError:
        strangers = f"; connections refused for a wrong key: {refused}" if refused else ""
        raise LinkTimeout(f"{address}: {address.sender} did not connect within {seconds(timeout)}{strangers}") from None
    finally:
        wire.remove_socket_file(address.path)


def _swap_hellos(connection: Connection, address: LinkAddress, peer: str, ours: bytes, deadline: float) -> bytes:
    try:
        connection.send_bytes(ours)
        if connection.poll(max(deadline - time.monotonic(), 0.0)):
            return connection.recv_bytes(MAX_HELLO_BYTES)
    except (EOFError, OSError):
        raise LinkClosed(f"{address}: {peer} ended while the link was being opened") from None
    raise LinkTimeout(f"{address}: {peer} connected and then fell silent while the link was being opened")


def _receive_descriptor(connection: Connection, address: LinkAddress, spec: TensorSpec, deadline: float) -> int:
    try:
        if not connection.poll(max(deadline - time.monotonic(), 0.0)):
            raise LinkTimeout(f"{address}: {address.sender} handed over no memory in time")
        with wire.as_socket(connection) as sock:
            _, descriptors, _, _ = socket.recv_fds(sock, 1, 1)
    except OSError:
        descriptors = []
    if not descriptors:
        raise LinkClosed(f"{address}: {address.sender} ended while the link was being opened")
    if os.fstat(descriptors[0]).st_size < SlotMemory.size(spec, address.depth):
        os.close(descriptors[0])
        raise LinkMismatch(f"{address}: {address.sender} handed over less memory than {spec} needs")
    return descriptors[0]


@contextlib.contextmanager
def _closed_on_error(connection: Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        connection.close()
        raise


def _frame(header: Header, tensor: Tensor) -> bytes:
    return struct.pack(f"!B{tensor.dim()}Q", tensor.dim(), *tensor.shape) + header.to_bytes()


def _unframe(frame: bytes) -> tuple[Header, tuple[int, ...]]:
    try:
        axes = frame[0]
        shape = struct.unpack_from(f"!{axes}Q", frame, 1)
    except (IndexError, struct.error) as error:
        raise TrainingError(f"a link delivered a frame that cannot be read ({error})") from None
    return Header.from_bytes(frame[1 + 8 * axes :]), shape
