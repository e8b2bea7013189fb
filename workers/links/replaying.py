"""Ends of a link that survive a restart of the process at the other end (`restart: stage`).

No gradient crosses a stage boundary, so a stage that died can be restarted alone from its snapshot. The stage before
sends it the batches since the snapshot again, and the stage after drops batches that it has received already. Both rely
on a restarted stage computing bit-identical results. Stage 2 dies at step 6, after a snapshot of 4 steps:

    stage 1    ReplayingSender     ... 5 6 | reconnects, resends 4 5 6 | 7 8 ...
    stage 2                        ... 5 x | starts from the snapshot:  4 5 6   7 8 ...
    stage 3    ResumingReceiver    ... 5   | reconnects, drops 4 5     | 6 7 8 ...
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

from torch import Tensor

from pipeline.errors import TrainingError
from workers.links.base import LinkClosed, LinkTimeout, Meter, Receiver, Sender
from workers.links.messages import Header, Message
from workers.links.replay import ReplayBuffer

SERVE_SECONDS = 0.1
"""How long one call of `serve` waits for a restarted receiver to take resent batches."""

ACCEPT_SECONDS = 0.5
"""How long one call of `accept_successor` waits for a restarted sender to connect."""


class ReplayingSender(Sender):
    """A sender whose receiver may die and be restarted.

    A restarted receiver gets the batches that it needs again before any new one, as fast as it takes them. Only
    `await_room` and `send` wait for that, and a `send` that finds the receiver dead does not. A process that sends to
    several replicas of a stage must serve them in turn: a single replica takes nothing while it waits for the others.

    Args:
        open_sender: opens the link, beneath its codec, when the receiver is there; called again after it died.
        buffer: of the batches that were sent.
        reopen_timeout: seconds to wait for a receiver to be restarted.
    """

    def __init__(self, open_sender: Callable[[], Sender], buffer: ReplayBuffer, reopen_timeout: float) -> None:
        self._open, self._buffer, self._reopen_timeout = open_sender, buffer, reopen_timeout
        self._inner = _open_with_retry(open_sender, reopen_timeout)
        self._bytes_before = 0
        self._pending: deque[int] = deque()
        """Steps to be sent, or to be sent again, in order."""
        super().__init__(self._inner.address, self._inner.spec)

    def measure(self, meter: Meter) -> None:
        """See `Sender.measure`."""
        super().measure(meter)
        self._inner.measure(meter)

    def await_room(self, timeout: float) -> None:
        """As `Sender.await_room`; waits for a dead receiver to be restarted, however short `timeout` is."""
        while True:
            deadline = time.monotonic() + timeout
            try:
                self._send_pending(deadline)
                return self._inner.await_room(max(deadline - time.monotonic(), 0.0))
            except LinkClosed:
                self._reopen()

    def send(self, header: Header, tensor: Tensor, timeout: float) -> None:
        """As `Sender.send`; if the receiver has died, all that it may need is sent after its restart."""
        self._buffer.add(header, tensor)
        self._meter("copying")
        if header.step not in self._pending:
            self._pending.append(header.step)
        newest = Message(header, tensor)
        try:
            self._send_pending(time.monotonic() + timeout, newest)
        except LinkClosed:
            self._reopen()
            with suppress(LinkTimeout, LinkClosed):
                self._send_pending(time.monotonic(), newest)
        self.bytes_sent = self._bytes_before + self._inner.bytes_sent

    def peer_gone(self) -> bool:
        """See `Sender.peer_gone`."""
        return self._inner.peer_gone()

    def serve(self) -> None:
        """To be called repeatedly after the last batch: resends to a receiver that was restarted since."""
        with suppress(LinkTimeout):
            try:
                self._send_pending(time.monotonic() + SERVE_SECONDS)
                died = self.peer_gone()
            except LinkClosed:
                died = True
            if died:
                self._reopen()

    def discard_before(self, steps: int) -> None:
        """Drop batches that no restart needs, because the snapshot after `steps` steps is complete. Thread-safe."""
        self._buffer.discard_before(steps)

    def close(self) -> None:
        """See `Sender.close`."""
        self._inner.close()
        self._buffer.close()

    def _send_pending(self, deadline: float, newest: Message | None = None) -> None:
        """Send what is due: `newest` from where it is, all others from the memory of the host, where they are kept."""
        while self._pending:
            step = self._pending[0]
            message = newest if newest is not None and newest.header.step == step else self._buffer.get(step)
            if message is not None:
                self._inner.send(message.header, message.tensor, max(deadline - time.monotonic(), 0.0))
            self._pending.popleft()

    def _reopen(self) -> None:
        """Connect to the restarted receiver, which needs all batches of the buffer."""
        self._inner.close()
        self._bytes_before += self._inner.bytes_sent
        self._inner = _open_with_retry(self._open, self._reopen_timeout)
        self._inner.measure(self._meter)
        self._pending = deque(self._buffer.steps())


class ResumingReceiver(Receiver):
    """A receiver whose sender may die and be restarted, after which it sends some batches again.

    Args:
        open_receiver: opens the link, waiting for the sender for the given seconds; called again after the sender died.
        reopen_timeout: seconds to wait for a sender to be restarted.
        start_step: batches before this one are dropped.
    """

    def __init__(self, open_receiver: Callable[[float], Receiver], reopen_timeout: float, start_step: int) -> None:
        self._open, self._reopen_timeout = open_receiver, reopen_timeout
        self._next, self._begun = start_step, False
        self._inner = _open_with_retry(partial(open_receiver, reopen_timeout), reopen_timeout)
        super().__init__(self._inner.address, self._inner.spec)

    def measure(self, meter: Meter) -> None:
        """See `Receiver.measure`."""
        super().measure(meter)
        self._inner.measure(meter)

    def recv(self, timeout: float) -> Message:
        """As `Receiver.recv`; waits for a dead sender to be restarted, and drops batches that were received before.

        Raises:
            TrainingError: a batch is missing between the previous one and this one.
        """
        deadline = time.monotonic() + timeout + self._reopen_timeout
        while True:
            try:
                message = self._inner.recv(timeout)
            except LinkClosed:
                if time.monotonic() > deadline:
                    raise
                self._reopen()
                continue
            step = message.header.step
            if self._begun and step > self._next:
                raise TrainingError(f"{self.address}: step {step} came where step {self._next} was due")
            if step >= self._next:
                self._next, self._begun = step + 1, True
                return message

    def serve(self) -> None:
        """To be called repeatedly after the last batch: lets a restarted sender send batches that are dropped here."""
        with suppress(LinkTimeout):
            try:
                while True:
                    self._inner.recv(0.0)
            except LinkClosed:
                self._reopen()

    def accept_successor(self) -> None:
        """See `Receiver.accept_successor`.

        The senders that the caller waits for may be waiting for the restarted one, as replicas of one stage, and that
        has to open this link first. A sender that has closed in order is not restarted, so the wait is short.
        """
        if self._inner.peer_gone() and not self._inner.waiting():
            self._inner.close()
            with suppress(LinkTimeout, LinkClosed):
                self._inner = self._open(ACCEPT_SECONDS)
                self._inner.measure(self._meter)

    def waiting(self) -> int:
        """See `Receiver.waiting`."""
        return self._inner.waiting()

    def close(self) -> None:
        """See `Receiver.close`."""
        self._inner.close()

    def _reopen(self) -> None:
        self._inner.close()
        self._inner = _open_with_retry(partial(self._open, self._reopen_timeout), self._reopen_timeout)
        self._inner.measure(self._meter)


End = TypeVar("End")


def _open_with_retry(opening: Callable[[], End], reopen_timeout: float) -> End:
    """Open one end; tries again if the other process dies meanwhile, until it is restarted or the time is over."""
    deadline = time.monotonic() + reopen_timeout
    while True:
        try:
            return opening()
        except LinkClosed:
            if time.monotonic() > deadline:
                raise
