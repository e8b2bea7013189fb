"""What one process may call in another: the handlers of the RPC link, and the ends they act on.

Remote calls name module-level functions, so the ends that are open in this process are kept in two tables
here, by the name of their link. No handler blocks: what must wait answers through a future.
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
"""Called with the answer of a remote call, or with None and its error, in a thread of the agent."""

_HandlerT = TypeVar("_HandlerT", bound=Callable[..., Any])


def _answers_later(handler: _HandlerT) -> _HandlerT:
    """Mark a handler whose future is the answer; the library's own decorator has no types."""
    mark: Callable[[_HandlerT], _HandlerT] = rpc.functions.async_execution
    return mark(handler)


@dataclass(frozen=True)
class PendingMessage:
    """A message that has arrived and waits; `taken` is the answer to its call."""

    header: bytes
    tensor: Tensor
    taken: Future[str]


class PeerState:
    """What one end knows of the other, and the calls of the other that wait until this end closes."""

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.changed = threading.Condition()
        self.over: str | None = None
        """Why nothing can travel any more; None while the link works."""
        self._watchers: list[Future[str]] = []

    def end(self, reason: str) -> None:
        """Record why the link is over (the first reason stays) and wake whoever waits."""
        with self.changed:
            self.over = self.over or reason
            self.changed.notify_all()

    def follow(self, link: str, handler: Callable[[str], Future[str]]) -> None:
        """Keep a call open at the other end, to learn when it closes or dies."""
        call(worker_name(self.peer), handler, (link,), 0.0, self.answered)

    def answered(self, answer: Any, error: Exception | None) -> None:
        """The other end closed (an answer) or died (an error)."""
        self.end(f"{self.peer} {'closed its end' if error is None else 'ended without closing the link'}")

    def add_watcher(self, watcher: Future[str]) -> None:
        """Answer `watcher` when this end closes."""
        with self.changed:
            self._watchers.append(watcher)

    def release(self) -> None:
        """Answer all who watch this end: it closes."""
        with self.changed:
            watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            watcher.set_result(CLOSED)


class SenderEnd(Protocol):
    """A sending end as the handlers see it."""

    address: LinkAddress
    watch: PeerState


class ReceiverEnd(Protocol):
    """A receiving end as the handlers see it."""

    address: LinkAddress
    watch: PeerState

    def on_connect(self, hello: bytes, answer: Future[bytes]) -> None:
        """The sender introduced itself; it waits for `answer`."""

    def arrive(self, number: int, parcel: PendingMessage) -> None:
        """Keep a message until it is taken."""

    def on_close(self, count: int, flushed: Future[str]) -> None:
        """The sender closes after `count` messages; answer when all have arrived."""


_lock = threading.Lock()
_senders: dict[str, SenderEnd] = {}
_receivers: dict[str, ReceiverEnd] = {}
_early_hellos: dict[str, tuple[bytes, Future[bytes]]] = {}
"""Of senders that introduced themselves before the receiver was opened."""


def register_sender(end: SenderEnd) -> None:
    """Let the handlers find `end`."""
    with _lock:
        _senders[end.address.name] = end


def register_receiver(end: ReceiverEnd) -> None:
    """Let the handlers find `end`, and give it the hello that came early, if one did."""
    with _lock:
        _receivers[end.address.name] = end
        early = _early_hellos.pop(end.address.name, None)
    if early is not None:
        end.on_connect(*early)


def deregister(end: SenderEnd | ReceiverEnd) -> None:
    """Forget `end`; calls that still arrive for it are answered with `CLOSED`."""
    with _lock:
        for table in (_senders, _receivers):
            if table.get(end.address.name) is end:
                del table[end.address.name]


def call(to: str, handler: Callable[..., Any], arguments: tuple[Any, ...], timeout: float, answered: Answered) -> None:
    """Call `handler` in process `to` without waiting; `answered` gets the outcome, whatever it is.

    Args:
        to: name in the RPC group.
        handler: one of the functions below.
        arguments: its arguments.
        timeout: seconds until the call fails; 0 for no limit.
        answered: called once.
    """

    def done(future: Future[Any]) -> None:
        try:
            answer = future.wait()  # it is complete: this only unwraps
        except Exception as error:
            answered(None, error)
        else:
            answered(answer, None)

    try:
        future = rpc.rpc_async(to, handler, args=arguments, timeout=timeout)
    except Exception as error:  # no agent, or nobody of that name
        answered(None, error)
    else:
        future.add_done_callback(done)


@_answers_later
def on_hello(link: str, hello: bytes) -> Future[bytes]:
    """A sender introduces itself; the answer is the receiver's own hello, once it is open."""
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
    """A message arrives; the answer comes when it is taken, and is its sender's permission for one more."""
    taken: Future[str] = Future()
    receiver = _receivers.get(link)
    if receiver is None:
        taken.set_result(CLOSED)
    else:
        receiver.arrive(number, PendingMessage(header, tensor, taken))
    return taken


@_answers_later
def on_goodbye(link: str, count: int) -> Future[str]:
    """The sender closes after `count` messages; the answer comes when all have arrived."""
    flushed: Future[str] = Future()
    receiver = _receivers.get(link)
    if receiver is None:
        flushed.set_result(CLOSED)
    else:
        receiver.on_close(count, flushed)
    return flushed


@_answers_later
def on_watch_sender(link: str) -> Future[str]:
    """The answer comes when the sending end of `link` closes."""
    return _watched(_senders.get(link))


@_answers_later
def on_watch_receiver(link: str) -> Future[str]:
    """The answer comes when the receiving end of `link` closes."""
    return _watched(_receivers.get(link))


def _watched(end: SenderEnd | ReceiverEnd | None) -> Future[str]:
    watcher: Future[str] = Future()
    if end is None:
        watcher.set_result(CLOSED)
    else:
        end.watch.add_watcher(watcher)
    return watcher
