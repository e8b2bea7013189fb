"""A training process's ear for the coordinator, and its pulse: one thread that hears, one that tells it is alive."""

from __future__ import annotations

import logging
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType, TracebackType
from typing import Any, Self

from pipeline.errors import TrainingError
from workers.control.channel import ControlClient, ControlClosed
from workers.control.failures import Interrupted
from workers.run.signals import PARENT_GONE, WAKE, signal_name
from workers.run.suspension import SuspensionDetector
from workers.stage.worker import Activity

POLL_SECONDS = 1.0
FORCE_SECONDS = 10.0
"""A process that was told to stop and is stuck in a call that no signal interrupts ends itself after this."""
WAKE_SECONDS = 0.1
_log = logging.getLogger(__name__)


class ControlListener:
    """Follows the control channel of one training process; a context manager of its main thread.

    Signals that ask the run to stop are passed on to the coordinator, which ends the run after a snapshot; the second
    of them, and the end of the control channel, raise `Interrupted` in the main thread.

    Args:
        control: to the coordinator.
        activity: what the process is doing.
        asking: signals that ask the run to stop.
        beat_seconds: between two signs of life.
        committed: called with the steps of every snapshot that is complete, from a thread.
    """

    def __init__(
        self,
        control: ControlClient,
        activity: Activity,
        asking: Sequence[int],
        beat_seconds: float,
        committed: Callable[[int], None],
    ) -> None:
        self._control, self._activity, self._asking = control, activity, asking
        self._beat_seconds, self._committed = beat_seconds, committed
        self.finished = threading.Event()
        """The whole run is over; nobody will ask this process for anything."""
        self._over = threading.Event()
        self._why = "asked to stop"
        self._lingering = False
        self._asked: queue.SimpleQueue[str] = queue.SimpleQueue()
        """Why to leave; the one kind of queue that a signal handler may use."""

    def __enter__(self) -> Self:
        signal.signal(WAKE, self._wake)
        for number in self._asking:
            signal.signal(number, self._asked_to_leave)
        for body, name in ((self._hear, "control-watch"), (self._beat, "pulse"), (self._pass_on, "leave")):
            threading.Thread(target=body, name=name, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # From here a signal changes nothing: this process is leaving, and may still have to say why.
        self._over.set()
        for number in (*self._asking, WAKE):
            signal.signal(number, signal.SIG_IGN)

    def linger(self, serve: Callable[[], None], timeout: float) -> None:
        """Until the run is over everywhere; a neighbour that is restarted may need this process till then.

        Args:
            serve: called again and again.
            timeout: seconds.
        """
        deadline = time.monotonic() + timeout
        self._lingering = True
        try:
            while not self.finished.wait(0.1) and time.monotonic() < deadline:
                serve()
        except Interrupted:
            if not self.finished.is_set():
                raise
        finally:
            self._lingering = False

    def _asked_to_leave(self, number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN if number == PARENT_GONE else self._wake)
        self._why = f"asked to stop by {signal_name(number)}"
        self._asked.put(self._why)

    def _pass_on(self) -> None:
        """Tell the coordinator. Not the handler does: it may have interrupted a send on the same channel."""
        self._send({"type": "leave", "why": self._asked.get()})

    def _wake(self, number: int, frame: FrameType | None) -> None:
        if self._over.is_set():
            return
        self._over.set()
        for other in (*self._asking, WAKE):
            signal.signal(other, signal.SIG_IGN)
        raise Interrupted(self._why)

    def _hear(self) -> None:
        while not self._over.is_set():
            try:
                message = self._control.poll(POLL_SECONDS)
            except TrainingError as error:  # it has gone, or what it says cannot be read
                self._interrupt(str(error))
                return
            kind = message.get("type") if message else None
            if kind == "committed" and message is not None:
                self._committed(int(message["steps"]))
            elif kind == "finish":
                self.finished.set()
                if self._lingering:
                    self._interrupt("the run is over")
                return
            elif kind == "stop":
                self._interrupt("the coordinator ended the run")
                return

    def _interrupt(self, why: str) -> None:
        if self._over.is_set():
            return
        self._why = why
        deadline = time.monotonic() + FORCE_SECONDS
        while time.monotonic() < deadline:
            # Again and again: a signal that comes just before a call blocks does not interrupt it.
            signal.pthread_kill(threading.main_thread().ident or 0, WAKE)
            if self._over.wait(WAKE_SECONDS):
                return
        _log.error("stuck in a call that cannot be interrupted; ending at once (%s)", why)
        os._exit(1)

    def _beat(self) -> None:
        suspension = SuspensionDetector(2 * self._beat_seconds + 1.0)
        while not self._over.wait(self._beat_seconds):
            stood, since = suspension.seconds(), self._activity.since
            if stood and since is not None:  # it may also have begun only now
                since = self._activity.since = min(since + stood, time.monotonic())
            computing = None if since is None else time.monotonic() - since
            self._send(
                {
                    "type": "beat",
                    "stage": self._activity.stage,
                    "step": self._activity.step,
                    "computing": computing,
                    "first": self._activity.first,
                }
            )

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self._control.send(message)
        except ControlClosed as error:
            _log.info("%s", error)
