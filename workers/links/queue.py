"""The link between two processes of one host: tensors in shared memory, headers over a Unix socket.

The sender copies a tensor into the next slot of anonymous shared memory and sends the header; the receiver uses the
slot in place. GPU tensors are copied through host memory.
"""

from __future__ import annotations

import os
import socket
import time
from multiprocessing.connection import Connection

import torch
from torch import Tensor

from pipeline.errors import UserError
from workers.links import wire
from workers.links.base import LinkAddress, LinkBuffers, LinkClosed, LinkMismatch, LinkTimeout
from workers.links.connecting import accept_sender, closed_on_error, connect_to_receiver, exchange_hellos
from workers.links.framed import TAKEN, FramedReceiver, FramedSender
from workers.links.handshake import hello_bytes
from workers.links.memory import SlotMemory, is_sealed, memory_file
from workers.links.messages import TensorSpec


class QueueSender(FramedSender):
    """Copies tensors into shared memory before `send` returns. Opened by `open_queue_sender`."""

    def __init__(self, address: LinkAddress, spec: TensorSpec, connection: Connection, memory: SlotMemory) -> None:
        super().__init__(address, spec, connection)
        self._memory: SlotMemory | None = memory

    @property
    def reads_later(self) -> bool:
        """See `Sender.reads_later`."""
        return False

    def _send_tensor(self, number: int, tensor: Tensor) -> None:
        assert self._memory is not None  # there was room, so this end is open
        self._memory.message(number, tuple(tensor.shape)).copy_(tensor)
        self._memory.sent = number + 1

    def _release(self) -> None:
        self._memory = None


class QueueReceiver(FramedReceiver):
    """Returns tensors in shared memory, or copies on a GPU. Opened by `open_queue_receiver`."""

    def __init__(
        self, address: LinkAddress, spec: TensorSpec, connection: Connection, memory: SlotMemory, device: torch.device
    ) -> None:
        super().__init__(address, spec, connection, device)
        self._memory: SlotMemory | None = memory

    def waiting(self) -> int:
        """See `Receiver.waiting`; the sender keeps the count in the shared memory."""
        memory = self._memory
        return 0 if memory is None else max(memory.sent - self._received, 0)

    def _tensor_of(self, number: int, shape: tuple[int, ...]) -> Tensor:
        assert self._memory is not None  # there was a frame, so this end is open
        return self._memory.message(number, shape).to(self._device)

    def _release(self) -> None:
        self._memory = None


def queue_buffers(spec: TensorSpec, depth: int) -> LinkBuffers:
    """What a link for messages of `spec` holds: all of it is the slots."""
    return LinkBuffers(message=spec.nbytes, shared=SlotMemory.size(spec, depth))


def open_queue_sender(address: LinkAddress, spec: TensorSpec, timeout: float, codec: str) -> QueueSender:
    """Connect to the receiver, exchange hellos and send the descriptor of the memory. Raises the three link errors."""
    _check_one_host(address)
    deadline = time.monotonic() + timeout
    connection = connect_to_receiver(address, timeout)
    with closed_on_error(connection):
        exchange_hellos(connection, address, hello_bytes(address, spec, "queue", codec), deadline, sending=True)
        with memory_file(spec, address.depth, str(address)) as descriptor, wire.as_socket(connection) as sock:
            memory = SlotMemory(descriptor, spec, address.depth)
            try:
                socket.send_fds(sock, [TAKEN], [descriptor])
            except OSError:
                raise LinkClosed(f"{address}: {address.receiver} ended while the link was being opened") from None
    return QueueSender(address, spec, connection, memory)


def open_queue_receiver(
    address: LinkAddress, spec: TensorSpec, timeout: float, codec: str, device: torch.device
) -> QueueReceiver:
    """Wait for the sender, exchange hellos and map its memory. Raises the three link errors."""
    _check_one_host(address)
    deadline = time.monotonic() + timeout
    connection = accept_sender(address, timeout)
    with closed_on_error(connection):
        exchange_hellos(connection, address, hello_bytes(address, spec, "queue", codec), deadline, sending=False)
        descriptor = _receive_descriptor(connection, address, spec, deadline)
        try:
            memory = SlotMemory(descriptor, spec, address.depth)
        finally:
            os.close(descriptor)
    return QueueReceiver(address, spec, connection, memory, device)


def _check_one_host(address: LinkAddress) -> None:
    if not address.path:
        problem = "a queue is shared memory, and these two processes share no folder for its socket"
        raise UserError(f"{address}: {problem}. Give link.kind=p2p or rpc where there are several hosts")


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
    if not is_sealed(descriptors[0]):
        os.close(descriptors[0])
        raise LinkMismatch(f"{address}: {address.sender} handed over memory that it could take away again")
    return descriptors[0]
