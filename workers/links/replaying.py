"""Ends of a link that outlive the process at the other end: what it needs when it comes back is sent again.

Nothing flows backward, so a stage that died can be brought back alone: from its snapshot, with the batches that came
after it. The sender keeps those until a newer snapshot is complete; the receiver drops what it has seen before. Both
rely on a restarted stage computing the same bits again.
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
from workers.links.base import LinkClosed, LinkTimeout, Receiver, Sender
from workers.links.messages import Header, Message
from workers.links.replay import ReplayBuffer

SERVE_SECONDS = 0.1
"""How long who has nothing else to do waits for a receiver to take what it gets once more."""

ATTEND_SECONDS = 0.5
"""How long a successor may take to connect while batches are awaited from others; then it gets another chance."""


class ReplayingSender(Sender):
    """A sender whose receiver may die and come back.

    Batches that a new receiver needs again go out as it takes them, before anything else; no call but `await_room` and
    `send` waits for that, and a `send` that finds the receiver gone does not either. Who sends to several replicas of
    a stage must serve all of them by turns: one alone takes nothing, it waits for the others.

    Args:
        open_sender: opens the link, once the receiver is there; called again after it died.
        log: of what was sent.
        patience: seconds to wait for a receiver to come back.
    """

    def __init__(self, open_sender: Callable[[], Sender], log: ReplayBuffer, patience: float) -> None:
        self._open, self._log, self._patience = open_sender, log, patience
        self._inner = _opened(open_sender, patience)
        self._retired = 0
        self._due: deque[int] = deque()
        """Steps that are yet to be sent, or sent again."""
        self._newest: Message | None = None
        """The last that was to be sent, as it was given: on the device that the link takes it from."""
        super().__init__(self._inner.address, self._inner.spec)

    def await_room(self, timeout: float) -> None:
        """As `Sender.await_room`; a receiver that died is waited for, however short `timeout` is."""
        while True:
            deadline = time.monotonic() + timeout
            try:
                self._send_due(deadline)
                return self._inner.await_room(max(deadline - time.monotonic(), 0.0))
            except LinkClosed:
                self._reopen()

    def send(self, header: Header, tensor: Tensor, timeout: float) -> None:
        """As `Sender.send`; if the receiver died, everything it may need is sent as soon as it takes it."""
        self._log.add(header, tensor)
        self._newest = Message(header, tensor)
        if header.step not in self._due:
            self._due.append(header.step)
        try:
            self._send_due(time.monotonic() + timeout)
        except LinkClosed:
            self._reopen()
            with suppress(LinkTimeout, LinkClosed):
                self._send_due(time.monotonic())
        self.bytes_sent = self._retired + self._inner.bytes_sent

    def gone(self) -> bool:
        """See `Sender.gone`."""
        return self._inner.gone()

    def serve(self) -> None:
        """Nothing new is to be sent: if the receiver has died since, send it once more what it needs."""
        with suppress(LinkTimeout):
            try:
                self._send_due(time.monotonic() + SERVE_SECONDS)
                died = self.gone()
            except LinkClosed:
                died = True
            if died:
                self._reopen()

    def forget(self, steps: int) -> None:
        """A snapshot after `steps` steps is complete; may be called from another thread."""
        self._log.forget(steps)

    def close(self) -> None:
        """See `Sender.close`."""
        self._inner.close()
        self._log.close()

    def _send_due(self, deadline: float) -> None:
        while self._due:
            message = self._log.get(self._due[0])
            if message is not None and (newest := self._newest) is not None:
                again = message.header.step != newest.header.step
                tensor = message.tensor.to(newest.tensor.device) if again else newest.tensor
                self._inner.send(message.header, tensor, max(deadline - time.monotonic(), 0.0))
            self._due.popleft()

    def _reopen(self) -> None:
        """Connect to the restarted receiver, which needs all that is kept."""
        self._inner.close()
        self._retired += self._inner.bytes_sent
        self._inner = _opened(self._open, self._patience)
        self._due = deque(self._log.steps())


class ResumingReceiver(Receiver):
    """A receiver whose sender may die and come back, and then sends some batches once more.

    Args:
        open_receiver: opens the link, and waits so many seconds for the sender; called again after that died.
        patience: seconds to wait for a sender to come back.
        start_step: batches before this one are dropped.
    """

    def __init__(self, open_receiver: Callable[[float], Receiver], patience: float, start_step: int) -> None:
        self._open, self._patience = open_receiver, patience
        self._next, self._begun = start_step, False
        self._inner = _opened(partial(open_receiver, patience), patience)
        super().__init__(self._inner.address, self._inner.spec)

    def recv(self, timeout: float) -> Message:
        """As `Receiver.recv`; a sender that died is waited for.

        Raises:
            TrainingError: a batch is missing between this one and the one before.
        """
        deadline = time.monotonic() + timeout + self._patience
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
        """The last batch is there: if the sender dies all the same, let its successor send what nobody needs."""
        with suppress(LinkTimeout):
            try:
                while True:
                    self._inner.recv(0.0)
            except LinkClosed:
                self._reopen()

    def attend(self) -> None:
        """See `Receiver.attend`.

        The successor may be waited for by those that this process waits for: it has to open this link before it can
        meet the other replicas of its stage. One that left in good order has none, so nobody is waited for long.
        """
        if self._inner.gone() and not self._inner.waiting():
            self._inner.close()
            with suppress(LinkTimeout, LinkClosed):
                self._inner = self._open(ATTEND_SECONDS)

    def waiting(self) -> int:
        """See `Receiver.waiting`."""
        return self._inner.waiting()

    def close(self) -> None:
        """See `Receiver.close`."""
        self._inner.close()

    def _reopen(self) -> None:
        self._inner.close()
        self._inner = _opened(partial(self._open, self._patience), self._patience)


End = TypeVar("End")


def _opened(opening: Callable[[], End], patience: float) -> End:
    """One end of the link. A process that dies while its end is being opened is waited for as any other."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return opening()
        except LinkClosed:
            if time.monotonic() > deadline:
                raise
