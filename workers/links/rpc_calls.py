"""The handlers of the RPC link, which other processes call, and a registry of the link ends that they act on.

Remote calls name module-level functions, so the open ends of this process are kept in two tables here, by the name of
their link. No handler blocks: one that has to wait answers through a future.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from torch import Tensor
from torch.distributed import rpc
from torch.futures import Future

from workers.links.base import LinkAddress, worker_name

TAKEN, CLOSED = "taken", "closed"
Answered = Callable[[Any, Exception | None], None]
"""Callback for the answer of a remote call, or None and its error; runs in a thread of the agent."""

_HandlerT = TypeVar("_HandlerT", bound=Callable[..., Any])


def _answers_later(handler: _HandlerT) -> _HandlerT:
    """Mark a handler that answers through the future it returns; a typed version of PyTorch's decorator."""
    mark: Callable[[_HandlerT], _HandlerT] = rpc.functions.async_execution
    return mark(handler)


@dataclass(frozen=True)
class PendingMessage:
    """A message that has arrived and was not received yet; `taken` answers its call."""

    header: bytes
    tensor: Tensor
    taken: Future[str]


class PeerState:
    """What one end knows of its peer, and the open calls by which the peer watches this end."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.changed = threading.Condition()
        self.closed_because: str | None = None
        """Why the link is closed; None while it works."""
        self._watchers: list[Future[str]] = []

    def end(self, reason: str) -> None:
        """Record why the link is closed (the first reason stays) and wake all waiting threads."""
        with self.changed:
            self.closed_because = self.closed_because or reason
            self.changed.notify_all()

    def watch_peer(self, link: str, handler: Callable[[str], Future[str]]) -> None:
        """Keep a call to the other end open, to notice when it closes or dies."""
        call(worker_name(self.name), handler, (link,), 0.0, self.answered)

    def answered(self, answer: Any, error: Exception | None) -> None:
        """The other end closed (an answer) or died (an error)."""
        self.end(f"{self.name} {'closed its end' if error is None else 'ended without closing the link'}")

    def add_watcher(self, watcher: Future[str]) -> None:
        """Answer `watcher` when this end closes."""
        with self.changed:
            self._watchers.append(watcher)

    def release(self) -> None:
        """Answer all calls that watch this end, because it closes."""
        with self.changed:
            watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            watcher.set_result(CLOSED)


class SenderEnd(Protocol):
    """What the handlers need of a sending end."""

    address: LinkAddress
    peer: PeerState


class ReceiverEnd(Protocol):
    """What the handlers need of a receiving end."""

    address: LinkAddress
    peer: PeerState

    def on_connect(self, hello: bytes, answer: Future[bytes]) -> None:
        """The sender has sent its hello and waits for `answer`."""

    def add_message(self, number: int, message: PendingMessage) -> None:
        """Keep a message until `recv` takes it."""

    def on_close(self, count: int, flushed: Future[str]) -> None:
        """The sender closes after `count` messages; `flushed` is answered when all have arrived."""


_lock = threading.Lock()
_senders: dict[str, SenderEnd] = {}
_receivers: dict[str, ReceiverEnd] = {}
_early_hellos: dict[str, tuple[bytes, Future[bytes]]] = {}
"""Hellos of senders whose receiver is not open yet, and the futures of their answers."""


def register_sender(end: SenderEnd) -> None:
    """Let the handlers find `end`."""
    with _lock:
        _senders[end.address.name] = end


def register_receiver(end: ReceiverEnd) -> None:
    """Let the handlers find `end`, and pass it the hello that arrived before, if there is one."""
    with _lock:
        _receivers[end.address.name] = end
        early = _early_hellos.pop(end.address.name, None)
    if early is not None:
        end.on_connect(*early)


def deregister(end: SenderEnd | ReceiverEnd) -> None:
    """Remove `end`; further calls for it are answered with `CLOSED`."""
    with _lock:
        for table in (_senders, _receivers):
            if table.get(end.address.name) is end:
                del table[end.address.name]


def call(to: str, handler: Callable[..., Any], arguments: tuple[Any, ...], timeout: float, answered: Answered) -> None:
    """Call `handler` in process `to` without waiting; `answered` gets the answer or the error.

    Args:
        to: name of the process in the RPC group.
        handler: one of the functions below.
        arguments: its arguments.
        timeout: seconds until the call fails; 0 for no limit.
        answered: called once.
    """

    def done(future: Future[Any]) -> None:
        try:
            answer = future.wait()  # does not block, the future is complete
        except Exception as error:
            answered(None, error)
        else:
            answered(answer, None)

    try:
        future = rpc.rpc_async(to, handler, args=arguments, timeout=timeout)
    except Exception as error:  # no agent, or no process of that name
        answered(None, error)
    else:
        future.add_done_callback(done)


@_answers_later
def on_hello(link: str, hello: bytes) -> Future[bytes]:
    """The hello of a sender; answered with the hello of the receiver when that is open."""
    answer: Future[bytes] = Future()
    with _lock:
        receiver = _receivers.get(link)
        if receiver is None:
            _early_hellos[link] = hello, answer
    if receiver is not None:
        receiver.on_connect(hello, answer)
    return answer


@_answers_later
def on_message(link: str, number: int, header: bytes, tensor: Tensor) -> Future[str]:
    """A message; answered when it is taken, which is the credit for one more."""
    taken: Future[str] = Future()
    receiver = _receivers.get(link)
    if receiver is None:
        taken.set_result(CLOSED)
    else:
        receiver.add_message(number, PendingMessage(header, tensor, taken))
    return taken


@_answers_later
def on_closing(link: str, count: int) -> Future[str]:
    """The sender closes after `count` messages; answered when all have arrived."""
    flushed: Future[str] = Future()
    receiver = _receivers.get(link)
    if receiver is None:
        flushed.set_result(CLOSED)
    else:
        receiver.on_close(count, flushed)
    return flushed


@_answers_later
def on_watch_sender(link: str) -> Future[str]:
    """Answered when the sending end of `link` closes."""
    return _watched(_senders.get(link))


@_answers_later
def on_watch_receiver(link: str) -> Future[str]:
    """Answered when the receiving end of `link` closes."""
    return _watched(_receivers.get(link))


def _watched(end: SenderEnd | ReceiverEnd | None) -> Future[str]:
    watcher: Future[str] = Future()
    if end is None:
        watcher.set_result(CLOSED)
    else:
        end.peer.add_watcher(watcher)
    return watcher
