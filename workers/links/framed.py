"""The two ends of a link whose headers travel over an authenticated socket; subclasses transfer the tensors.

A frame is the shape of a tensor and its header. For every message that the receiver takes, one byte travels back, the
credit for one more. With `depth` 2:

    sender                                              receiver
    send 0   sent 1, taken 0   -- frame 0 -->
    send 1   sent 2, taken 0   -- frame 1 -->
    send 2   blocks: sent - taken == depth
                               <-- TAKEN ---            recv 0
             sent 2, taken 1   -- frame 2 -->

So at most `depth` messages are unreceived, however fast the sender is. When a process dies the kernel closes its
socket, by which the other end notices at once.
"""

from __future__ import annotations

import contextlib
import struct
import time
from abc import abstractmethod
from multiprocessing.connection import Connection

import torch
from torch import Tensor

from pipeline.errors import TrainingError
from workers.links import wire
from workers.links.base import LinkAddress, LinkClosed, LinkTimeout, Receiver, Sender, seconds
from workers.links.messages import MAX_HEADER_BYTES, Header, Message, TensorSpec

TAKEN, ARRIVED, CLOSING = b"+", b"=", b"x"
GONE = (BrokenPipeError, ConnectionResetError, EOFError)
"""Errors of a socket whose peer has ended."""

MAX_FRAME_BYTES = MAX_HEADER_BYTES + 1024
POLL_SECONDS = 5e-5
"""How often a device is asked whether it has got somewhere: it can wake nobody."""


class FramedSender(Sender):
    """Announces each message by a frame, and transfers the tensor by `_send_tensor`.

    Args:
        address, spec: as agreed with the receiver.
        connection: to the receiver, authenticated.
    """

    def __init__(self, address: LinkAddress, spec: TensorSpec, connection: Connection) -> None:
        super().__init__(address, spec)
        self._connection = connection
        self._sent = self._taken = 0
        self._all_arrived = False
        self._closed_because: str | None = None

    def await_room(self, timeout: float) -> None:
        """See `Sender.await_room`."""
        deadline = time.monotonic() + timeout
        self._read_answers()  # also where there is room: the receiver may have ended
        while self._closed_because is None and self._sent - self._taken >= self.address.depth:
            if not wire.ready([self._connection], max(deadline - time.monotonic(), 0.0)):
                raise LinkTimeout(
                    f"{self.address}: no room within {seconds(timeout)}: {self.address.receiver} has not taken any of "
                    f"the {self.address.depth} messages that wait (link.depth)"
                )
            self._read_answers()
        if self._closed_because is not None:
            raise LinkClosed(f"{self.address}: cannot send message {self._sent}: {self._closed_because}")

    def send(self, header: Header, tensor: Tensor, timeout: float) -> None:
        """See `Sender.send`."""
        self._check_fits(tuple(tensor.shape), tensor.dtype)
        deadline = time.monotonic() + timeout
        self.await_room(timeout)
        self._meter("waiting")
        try:
            self._send_tensor(self._sent, tensor.detach(), deadline)
            self._connection.send_bytes(_frame(header, tensor))
        except OSError as error:
            self._read_answers()  # the receiver may have announced that it closes
            self._end(f"{self.address.receiver} cannot be reached ({error.strerror or error})")
            raise LinkClosed(f"{self.address}: message {self._sent} was not sent: {self._closed_because}") from None
        self._sent += 1
        self.bytes_sent += tensor.numel() * tensor.element_size()
        self._meter("copying")

    def peer_gone(self) -> bool:
        """See `Sender.peer_gone`."""
        self._read_answers()
        return self._closed_because is not None

    def close(self) -> None:
        """Tell the receiver that no more follows; what was sent can still be received."""
        with contextlib.suppress(OSError):
            self._connection.send_bytes(CLOSING)
        self._release()
        self._end("this end was closed")
        self._connection.close()

    @abstractmethod
    def _send_tensor(self, number: int, tensor: Tensor, deadline: float) -> None:
        """Transfer the tensor of message `number`, for which there is room, or raise `LinkTimeout`.

        Raises `OSError` if that fails.
        """

    @abstractmethod
    def _release(self) -> None:
        """Release what transfers tensors; called when the receiver knows that no more follows, and possibly again."""

    def _read_answers(self) -> None:
        try:
            while self._closed_because is None and wire.ready([self._connection], 0.0):
                answer = self._connection.recv_bytes(1)
                if answer == CLOSING:
                    self._end(f"{self.address.receiver} closed its end")
                self._taken += answer == TAKEN
                self._all_arrived |= answer == ARRIVED
        except (*GONE, OSError):
            self._end(f"{self.address.receiver} ended without closing the link")

    def _end(self, reason: str) -> None:
        self._closed_because = self._closed_because or reason


class FramedReceiver(Receiver):
    """Takes frames in order, and their tensors from `_tensor_of`.

    Args:
        address, spec: as agreed with the sender.
        connection: to the sender, authenticated.
        device: that tensors are moved to.
    """

    def __init__(self, address: LinkAddress, spec: TensorSpec, connection: Connection, device: torch.device) -> None:
        super().__init__(address, spec)
        self._connection = connection
        self._device = device
        self._received = 0
        self._closed_because: str | None = None
        self._announced: bytes | None = None
        """The frame of a message whose tensor was not there in time."""

    def recv(self, timeout: float) -> Message:
        """See `Receiver.recv`. On the CPU the tensor is the link's own memory."""
        deadline = time.monotonic() + timeout
        frame = self._announced = self._announced or self._next_frame(timeout)
        self._meter("waiting")
        header, shape = _unframe(frame)
        self._check_fits(shape, self.spec.dtype)
        tensor = self._tensor_of(self._received, shape, deadline)
        self._announced = None
        self._received += 1
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # a sender that has closed needs no credit
            self._answer(TAKEN)
        self._meter("copying")
        return Message(header, tensor)

    def peer_gone(self) -> bool:
        """See `Receiver.peer_gone`."""
        return self._closed_because is not None or wire.has_ended(self._connection)

    def close(self) -> None:
        """Tell the sender, and release the memory (a tensor in use keeps it alive)."""
        with contextlib.suppress(OSError):
            self._answer(CLOSING)
        self._closed_because = self._closed_because or "this end was closed"
        self._release()
        self._connection.close()

    @abstractmethod
    def _tensor_of(self, number: int, shape: tuple[int, ...], deadline: float) -> Tensor:
        """The tensor of message `number`, of which the frame has arrived, on the device, or `LinkTimeout`.

        Frees the slot of the previous one.
        """

    @abstractmethod
    def _release(self) -> None:
        """Release what transfers tensors; may be called again."""

    def _frame_within(self, timeout: float) -> bool:
        """Whether a frame, or the end of the link, can be read within `timeout` seconds."""
        return bool(wire.ready([self._connection], timeout))

    def _read_frame(self) -> bytes:
        """The next frame; raises `EOFError` or `OSError` where the sender has ended."""
        return self._connection.recv_bytes(MAX_FRAME_BYTES)

    def _answer(self, answer: bytes) -> None:
        self._connection.send_bytes(answer)

    def _next_frame(self, timeout: float) -> bytes:
        if self._closed_because is None:
            try:
                if not self._frame_within(max(timeout, 0.0)):
                    raise LinkTimeout(
                        f"{self.address}: {self.address.sender} sent nothing within {seconds(timeout)} "
                        f"(waiting for message {self._received})"
                    )
                frame = self._read_frame()
                if frame != CLOSING:
                    return frame
                self._closed_because = f"{self.address.sender} closed its end after {self._received} messages"
            except (*GONE, OSError):
                self._closed_because = f"{self.address.sender} ended without closing the link"
        raise LinkClosed(f"{self.address}: message {self._received} cannot be received: {self._closed_because}")


def _frame(header: Header, tensor: Tensor) -> bytes:
    return struct.pack(f"!B{tensor.dim()}Q", tensor.dim(), *tensor.shape) + header.to_bytes()


def _unframe(frame: bytes) -> tuple[Header, tuple[int, ...]]:
    try:
        axes = frame[0]
        shape = struct.unpack_from(f"!{axes}Q", frame, 1)
    except (IndexError, struct.error) as error:
        raise TrainingError(f"a link delivered a frame that cannot be read ({error})") from None
    return Header.from_bytes(frame[1 + 8 * axes :]), shape
