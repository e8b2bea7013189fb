"""The link between two processes of one host: tensors in memory that both see, headers over a Unix socket.

The sender copies a tensor into the next slot and sends the header. Between two CPUs the slots are anonymous shared
memory, and the receiver uses a slot in place. Where GPUs are in it, `slot_choice` says where the slots are; the
protocol is the same for all, as the device is behind `slots`.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import torch
from torch import Tensor

from pipeline.errors import UserError
from workers.links import wire
from workers.links.base import LinkAddress, LinkBuffers, LinkClosed, LinkMismatch, LinkTimeout
from workers.links.connecting import accept_sender, closed_on_error, connect_to_receiver, exchange_hellos
from workers.links.framed import POLL_SECONDS, TAKEN, FramedReceiver, FramedSender
from workers.links.gpu import LinkGpu
from workers.links.handshake import hello_bytes, parse_hello
from workers.links.memory import SlotMemory, is_sealed, memory_file
from workers.links.messages import TensorSpec
from workers.links.pinned import PinnedIn, PinnedOut
from workers.links.ring import RingOffer, open_ring, ring_bytes
from workers.links.slot_choice import SlotChoice, Statement, choose
from workers.links.slots import HostIn, HostOut, InSlots, OutSlots

CPU = torch.device("cpu")
NO_SLOTS = TensorSpec((0,), torch.uint8)
"""Of the shared memory beside a ring, in which there is only the count of messages."""
DYING_SECONDS = 2.0
"""A device that fails because the other process dies may notice sooner than its socket does."""


class QueueSender(FramedSender):
    """Writes tensors into slots. Opened by `open_queue_sender`.

    Args:
        address, spec, connection: as for `FramedSender`.
        memory: has the count of messages.
        slots: for their tensors.
    """

    def __init__(
        self, address: LinkAddress, spec: TensorSpec, connection: Connection, *, memory: SlotMemory, slots: OutSlots
    ) -> None:
        super().__init__(address, spec, connection)
        self._memory: SlotMemory | None = memory
        self._slots: OutSlots | None = slots
        self._reads_later = slots.reads_later

    @property
    def reads_later(self) -> bool:
        """See `Sender.reads_later`."""
        return self._reads_later

    def _send_tensor(self, number: int, tensor: Tensor, deadline: float) -> None:
        assert self._memory is not None  # there was room, so this end is open
        assert self._slots is not None

        def wait(reached: Callable[[], bool]) -> None:
            while self.peer_gone() or not reached():  # what a dead process has made is not asked
                if self.peer_gone():
                    raise LinkClosed(f"{self.address}: cannot send message {number}: {self._closed_because}")
                if time.monotonic() > deadline:
                    raise LinkTimeout(f"{self.address}: {self.address.receiver} still computes with the slot "
                                      f"of message {number}")  # fmt: skip
                time.sleep(POLL_SECONDS)

        try:
            self._slots.put(number, tensor, wait)
        except RuntimeError as error:  # of CUDA, on memory of a process that dies
            dying = time.monotonic() + DYING_SECONDS
            while not self.peer_gone():
                if time.monotonic() > dying:
                    raise
                time.sleep(POLL_SECONDS)
            raise OSError(str(error)) from None
        self._memory.sent = number + 1

    def _release(self) -> None:
        slots, self._slots, self._memory = self._slots, None, None
        if slots is not None:
            slots.close()


class QueueReceiver(FramedReceiver):
    """Returns tensors in their slots, or copies of them on a GPU. Opened by `open_queue_receiver`.

    Args:
        address, spec, connection, device: as for `FramedReceiver`.
        memory: has the count of messages.
        slots: of their tensors.
    """

    def __init__(
        self,
        address: LinkAddress,
        spec: TensorSpec,
        connection: Connection,
        device: torch.device,
        *,
        memory: SlotMemory,
        slots: InSlots,
    ) -> None:
        super().__init__(address, spec, connection, device)
        self._memory: SlotMemory | None = memory
        self._slots: InSlots | None = slots

    def waiting(self) -> int:
        """See `Receiver.waiting`; the sender keeps the count in the shared memory."""
        memory = self._memory
        return 0 if memory is None else max(memory.sent - self._received, 0)

    def _tensor_of(self, number: int, shape: tuple[int, ...], deadline: float) -> Tensor:
        assert self._slots is not None  # there was a frame, so this end is open

        def wait(reached: Callable[[], bool]) -> None:
            while not reached():
                if wire.has_ended(self._connection) and not reached():
                    gone = f"{self.address.sender} ended before its tensor was there"
                    raise LinkClosed(f"{self.address}: message {number} cannot be received: {gone}")
                if time.monotonic() > deadline:
                    raise LinkTimeout(f"{self.address}: the tensor of message {number} is not there in time: "
                                      f"{self.address.sender} still computes it")  # fmt: skip
                time.sleep(POLL_SECONDS)

        return self._slots.take(number, shape, wait)

    def _release(self) -> None:
        slots, self._slots, self._memory = self._slots, None, None
        if slots is not None:
            slots.close()


def gpu_of(device: torch.device) -> LinkGpu | None:
    """The GPU of a device; None for a CPU."""
    if device.type != "cuda":
        return None
    from workers.links.cuda import CudaGpu

    return CudaGpu(device)


def queue_buffers(spec: TensorSpec, depth: int, ring: bool = False) -> LinkBuffers:
    """What a link for messages of `spec` holds: all of it is the slots, in shared memory or on the receiver's GPU."""
    if ring:
        return LinkBuffers(message=spec.nbytes, receiving=ring_bytes(spec, depth))
    return LinkBuffers(message=spec.nbytes, shared=SlotMemory.size(spec, depth))


def open_queue_sender(
    address: LinkAddress,
    spec: TensorSpec,
    timeout: float,
    codec: str,
    device: torch.device = CPU,
    device_to_device: bool = True,
) -> QueueSender:
    """Connect to the receiver, agree on the slots and send the descriptor of memory. Raises the three link errors."""
    _check_one_host(address)
    deadline = time.monotonic() + timeout
    gpu = gpu_of(device)
    ours = Statement.of(gpu, device_to_device)
    connection = connect_to_receiver(address, timeout)
    with closed_on_error(connection):
        theirs = _agree(connection, address, spec, codec, ours, deadline, sending=True)
        choice, slots = choose(address, ours, theirs), None
        if choice.place == "ring" and gpu is not None:
            opened = open_ring(gpu, theirs.gpu, connection, address, spec, deadline)
            choice, slots = (SlotChoice("pinned", opened), None) if isinstance(opened, str) else (choice, opened)
        held = NO_SLOTS if slots is not None else spec
        with memory_file(held, address.depth, str(address)) as descriptor, wire.as_socket(connection) as sock:
            memory = SlotMemory(descriptor, held, address.depth)
            try:
                socket.send_fds(sock, [TAKEN], [descriptor])
            except OSError:
                raise LinkClosed(f"{address}: {address.receiver} ended while the link was being opened") from None
        slots = slots or (HostOut(memory) if gpu is None else PinnedOut(memory, gpu))
        sender = QueueSender(address, spec, connection, memory=memory, slots=slots)
    sender.way = _in_words(choice, address, slots)
    return sender


def open_queue_receiver(
    address: LinkAddress,
    spec: TensorSpec,
    timeout: float,
    codec: str,
    device: torch.device,
    device_to_device: bool = True,
) -> QueueReceiver:
    """Wait for the sender, agree on the slots and map the memory. Raises the three link errors."""
    _check_one_host(address)
    deadline = time.monotonic() + timeout
    gpu = gpu_of(device)
    ours = Statement.of(gpu, device_to_device)
    connection = accept_sender(address, timeout)
    with closed_on_error(connection):
        theirs = _agree(connection, address, spec, codec, ours, deadline, sending=False)
        choice, slots, offer = choose(address, theirs, ours), None, None
        if choice.place == "ring" and gpu is not None:
            offer = RingOffer(gpu, connection, address, spec, deadline)
            opened = offer.accepted()
            choice, slots = (SlotChoice("pinned", opened), None) if isinstance(opened, str) else (choice, opened)
        held = NO_SLOTS if slots is not None else spec
        descriptor = _receive_descriptor(connection, address, held, deadline)
        if offer is not None and slots is None:
            offer.withdraw()
        try:
            memory = SlotMemory(descriptor, held, address.depth)
        finally:
            os.close(descriptor)
        slots = slots or (HostIn(memory, device) if gpu is None else PinnedIn(memory, gpu))
        receiver = QueueReceiver(address, spec, connection, device, memory=memory, slots=slots)
    receiver.way = _in_words(choice, address, slots)
    return receiver


def _agree(
    connection: Connection,
    address: LinkAddress,
    spec: TensorSpec,
    codec: str,
    ours: Statement,
    deadline: float,
    *,
    sending: bool,
) -> Statement:
    """Exchange hellos; what the other end states."""
    hello = hello_bytes(address, spec, "queue", codec, **ours.to_hello())
    return Statement.from_hello(
        parse_hello(address, exchange_hellos(connection, address, hello, deadline, sending=sending))
    )


def _in_words(choice: SlotChoice, address: LinkAddress, slots: InSlots | OutSlots) -> str:
    """How tensors get across, for the user."""
    words, refusal = choice.in_words(address), getattr(slots, "refusal", "")
    return (
        f"{words}; through pinned pages, as the shared memory could not be registered ({refusal})" if refusal else words
    )


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
