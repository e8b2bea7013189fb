"""The link between processes of any hosts, over `torch.distributed.rpc`.

A message is a remote call that is answered when the receiver takes it, so the unanswered calls are the unreceived
messages, and `depth` bounds their number. TensorPipe may execute calls out of order, so messages are numbered. Each end
also keeps one call to the other open for as long as the link is: it fails when that process dies, by which a blocked
end notices. GPU tensors are copied through host memory. The agent of the process (`rpc_agent`) must run; it may carry
several links, which are distinguished by name.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

import torch
from torch import Tensor
from torch.futures import Future

from pipeline.errors import reason_of
from workers.links.base import LinkAddress, LinkBuffers, LinkClosed, LinkTimeout, Receiver, Sender, seconds, worker_name
from workers.links.handshake import compare_hellos, hello_bytes
from workers.links.messages import Header, Message, TensorSpec
from workers.links.rpc_calls import (
    CLOSED,
    TAKEN,
    PeerState,
    PendingMessage,
    call,
    deregister,
    on_closing,
    on_hello,
    on_message,
    on_watch_receiver,
    on_watch_sender,
    register_receiver,
    register_sender,
)

FLUSH_SECONDS = 10.0
"""Longest wait of `close` for messages that are still in flight."""

_log = logging.getLogger(__name__)


class RpcSender(Sender):
    """Sends through the RPC agent of this process; opened by `open_rpc_sender`."""

    def __init__(self, address: LinkAddress, spec: TensorSpec) -> None:
        super().__init__(address, spec)
        self.peer = PeerState(address.receiver)
        self._to = worker_name(address.receiver)
        self._sent = self._pending = 0
        self._closed = False

    def await_room(self, timeout: float) -> None:
        """See `Sender.await_room`."""
        depth, peer = self.address.depth, self.peer
        with peer.changed:
            if not peer.changed.wait_for(
                lambda: peer.closed_because is not None or self._pending < depth, max(timeout, 0.0)
            ):
                raise LinkTimeout(
                    f"{self.address}: no room within {seconds(timeout)}: {self.address.receiver} has not taken any of "
                    f"the {depth} messages that wait (link.depth)"
                )
            if peer.closed_because is not None:
                raise LinkClosed(f"{self.address}: cannot send message {self._sent}: {peer.closed_because}")

    def send(self, header: Header, tensor: Tensor, timeout: float) -> None:
        """See `Sender.send`; the tensor is still being read when the call returns."""
        self._check_fits(tuple(tensor.shape), tensor.dtype)
        self.await_room(timeout)
        self._meter("waiting")
        with self.peer.changed:
            self._pending += 1
        packed = tensor.detach().to("cpu").contiguous()
        arguments = (self.address.name, self._sent, header.to_bytes(), packed)
        call(self._to, on_message, arguments, 0.0, self._answered)
        self._sent += 1
        self.bytes_sent += packed.numel() * packed.element_size()
        self._meter("copying")

    def close(self) -> None:
        """Tell the receiver that no more follows, and wait (10 s at most) until all messages have arrived."""
        if self._closed:
            return
        self._closed = True
        if self.peer.closed_because is None:
            arrived = threading.Event()
            closing = (self.address.name, self._sent)
            call(self._to, on_closing, closing, FLUSH_SECONDS, lambda answer, error: arrived.set())
            if not arrived.wait(FLUSH_SECONDS):
                _log.warning("%s: messages may be lost: %s did not confirm them", self.address, self.address.receiver)
        self.peer.end("this end was closed")
        deregister(self)
        self.peer.release()

    def _answered(self, answer: Any, error: Exception | None) -> None:
        if error is not None or answer != TAKEN:
            self.peer.answered(answer, error)
            return
        with self.peer.changed:
            self._pending -= 1
            self.peer.changed.notify_all()


class RpcReceiver(Receiver):
    """Receives through the RPC agent of this process; opened by `open_rpc_receiver`."""

    def __init__(self, address: LinkAddress, spec: TensorSpec, device: torch.device) -> None:
        super().__init__(address, spec)
        self.peer = PeerState(address.sender)
        self._device = device
        self._hello: tuple[bytes, Future[bytes]] | None = None
        self._arrived: dict[int, PendingMessage] = {}
        self._received = self._total_arrived = 0
        self._closed_after: int | None = None
        self._flushed: Future[str] | None = None

    def recv(self, timeout: float) -> Message:
        """See `Receiver.recv`. On the CPU the tensor is the memory that the agent received into."""
        peer = self.peer
        with peer.changed:
            if not peer.changed.wait_for(self._message_or_end, max(timeout, 0.0)):
                raise LinkTimeout(
                    f"{self.address}: {self.address.sender} sent nothing within {seconds(timeout)} "
                    f"(waiting for message {self._received})"
                )
            message = self._arrived.pop(self._received, None)
            if message is None:
                reason = peer.closed_because
                if self._received == self._closed_after:
                    reason = f"{self.address.sender} closed its end after {self._received} messages"
                raise LinkClosed(f"{self.address}: message {self._received} cannot be received: {reason}")
            self._received += 1
        self._meter("waiting")
        message.taken.set_result(TAKEN)
        self._check_fits(tuple(message.tensor.shape), message.tensor.dtype)
        tensor = message.tensor.to(self._device)
        self._meter("copying")
        return Message(Header.from_bytes(message.header), tensor)

    def waiting(self) -> int:
        """See `Receiver.waiting`; counts messages that have arrived."""
        return len(self._arrived)

    def close(self) -> None:
        """Tell the sender, and drop unreceived messages."""
        with self.peer.changed:
            dropped, self._arrived = list(self._arrived.values()), {}
        self.peer.end("this end was closed")
        deregister(self)
        for message in dropped:
            message.taken.set_result(CLOSED)
        self.peer.release()
        self._confirm()

    def on_connect(self, hello: bytes, answer: Future[bytes]) -> None:
        """The sender has sent its hello and waits for `answer`."""
        with self.peer.changed:
            self._hello = hello, answer
            self.peer.changed.notify_all()

    def await_hello(self, timeout: float) -> tuple[bytes, Future[bytes]]:
        """The hello of the sender and the future of its answer; raises `LinkTimeout`."""
        with self.peer.changed:
            self.peer.changed.wait_for(lambda: self._hello is not None, max(timeout, 0.0))
            if self._hello is None:
                raise LinkTimeout(f"{self.address}: {self.address.sender} did not connect within {seconds(timeout)}")
            return self._hello

    def add_message(self, number: int, message: PendingMessage) -> None:
        """Keep a message until `recv` takes it."""
        with self.peer.changed:
            self._arrived[number] = message
            self._total_arrived += 1
            self.peer.changed.notify_all()
        self._confirm()

    def on_close(self, count: int, flushed: Future[str]) -> None:
        """The sender closes after `count` messages; `flushed` is answered when all have arrived."""
        with self.peer.changed:
            self._closed_after, self._flushed = count, flushed
            self.peer.changed.notify_all()
        self._confirm()

    def _confirm(self) -> None:
        with self.peer.changed:
            complete = self._total_arrived == self._closed_after or self.peer.closed_because is not None
            flushed = self._flushed if complete else None
            self._flushed = None if complete else self._flushed
        if flushed is not None:
            flushed.set_result(TAKEN)

    def _message_or_end(self) -> bool:
        closed_because = self.peer.closed_because is not None or self._received == self._closed_after
        return closed_because or self._received in self._arrived


def rpc_buffers(spec: TensorSpec, depth: int) -> LinkBuffers:
    """What a link for messages of `spec` holds: those not answered, and those that have arrived or are in use."""
    return LinkBuffers(message=spec.nbytes, sending=depth * spec.nbytes, receiving=(depth + 1) * spec.nbytes)


def open_rpc_sender(address: LinkAddress, spec: TensorSpec, timeout: float, codec: str) -> RpcSender:
    """Exchange hellos with the receiver. Raises the three link errors."""
    sender = RpcSender(address, spec)
    register_sender(sender)  # first, because the receiver opens its call to this end
    try:
        ours = hello_bytes(address, spec, "rpc", codec)
        compare_hellos(address, sender=ours, receiver=_exchange_hello(address, ours, timeout))
    except BaseException:
        deregister(sender)
        sender.peer.release()
        raise
    sender.peer.watch_peer(address.name, on_watch_receiver)
    return sender


def open_rpc_receiver(
    address: LinkAddress, spec: TensorSpec, timeout: float, codec: str, device: torch.device
) -> RpcReceiver:
    """Wait for the sender and exchange hellos. Raises the three link errors."""
    receiver = RpcReceiver(address, spec, device)
    register_receiver(receiver)
    try:
        theirs, answer = receiver.await_hello(timeout)
        ours = hello_bytes(address, spec, "rpc", codec)
        receiver.peer.watch_peer(address.name, on_watch_sender)
        answer.set_result(ours)  # before comparing, so that both ends report a mismatch
        compare_hellos(address, sender=theirs, receiver=ours)
    except BaseException:
        deregister(receiver)
        receiver.peer.release()
        raise
    return receiver


def _exchange_hello(address: LinkAddress, ours: bytes, timeout: float) -> bytes:
    answered = threading.Event()
    outcome: list[tuple[Any, Exception | None]] = []

    def keep(answer: Any, error: Exception | None) -> None:
        outcome.append((answer, error))
        answered.set()

    # The limit of the call is longer: the agent's timer may fire early, and its error looks like a dead peer.
    call(worker_name(address.receiver), on_hello, (address.name, ours), timeout + 1.0, keep)
    in_time = answered.wait(timeout)
    answer, error = outcome[0] if in_time else (None, None)
    if isinstance(answer, bytes):
        return answer
    if error is None:
        raise LinkTimeout(f"{address}: {address.receiver} did not open its end within {seconds(timeout)}")
    opening = f"{address}: {address.receiver} cannot be reached while the link is being opened"
    raise LinkClosed(f"{opening} ({reason_of(error)})")
