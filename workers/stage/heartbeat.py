"""Listens to the coordinator and sends heartbeats, in threads beside the training loop of a process.

Only a signal interrupts a main thread that blocks in a kernel, a link or a collective, so these threads send it one:

    thread          waits for                        then
    control-watch   messages of the coordinator      stop, connection lost: sends WAKE to the main thread, repeatedly,
                                                     because one that arrives just before a call blocks is lost; after
                                                     FORCE_SECONDS it ends the process; stacks: writes those of all
                                                     threads
    heartbeat       the next interval                sends stage, step, and how long the main thread has computed
    leave           a stop signal: SIGTERM, Ctrl-C   tells the coordinator, which stops the run after a snapshot
    main            (trains)                         the handler of WAKE raises `Interrupted`, once

A heartbeat does not show that the main thread makes progress; the coordinator judges that by the computing time.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Self

from pipeline.errors import TrainingError
from workers.control.channel import ControlClient, ControlClosed
from workers.control.failures import FailureReport, Interrupted
from workers.run.signals import PARENT_GONE, WAKE, signal_name
from workers.run.suspension import SuspensionDetector
from workers.stage.worker import Activity

POLL_SECONDS = 1.0
FORCE_SECONDS = 10.0
"""A process that is told to stop while it is stuck in a call that no signal interrupts ends itself after this."""
WAKE_SECONDS = 0.1
_log = logging.getLogger(__name__)


class ControlListener:
    """Listens to the control channel of one training process; a context manager of its main thread.

    The first signal that asks the run to stop is reported to the coordinator, which ends the run after a snapshot. The
    second one, and the end of the control channel, raise `Interrupted` in the main thread.

    Args:
        control: channel to the coordinator.
        activity: what the process is doing.
        stop_signals: signals that ask the run to stop.
        heartbeat_seconds: between two signs of life.
        committed: called with the steps of every snapshot that is complete, from a thread.
        stacks: called from a thread when the coordinator wants to know what this process is doing; whether it has
            written what NCCL is doing, beside the stacks of its threads.
    """

    def __init__(
        self,
        control: ControlClient,
        activity: Activity,
        stop_signals: Sequence[int],
        heartbeat_seconds: float,
        committed: Callable[[int], None],
        *,
        stacks: Callable[[], bool] = bool,
    ) -> None:
        self._control, self._activity, self._stop_signals = control, activity, stop_signals
        self._heartbeat_seconds, self._committed, self._stacks = heartbeat_seconds, committed, stacks
        self.finished = threading.Event()
        """Set when the whole run is over."""
        self._over = threading.Event()
        self._reason = "asked to stop"
        self._waiting_for_end = False
        self.root_cause: FailureReport | None = None
        """Why the coordinator ended the run, if it has said so."""
        self._stop_requests: queue.SimpleQueue[str] = queue.SimpleQueue()
        """Why the run is to stop; a SimpleQueue, because a signal handler fills it."""

    def __enter__(self) -> Self:
        signal.signal(WAKE, self._on_wake)
        for number in self._stop_signals:
            signal.signal(number, self._on_stop_signal)
        for body, name in (
            (self._listen, "control-watch"),
            (self._send_heartbeats, "heartbeat"),
            (self._forward_stop, "leave"),
        ):
            threading.Thread(target=body, name=name, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # From here signals are ignored: this process ends, and may still have to report why.
        self._over.set()
        for number in (*self._stop_signals, WAKE):
            signal.signal(number, signal.SIG_IGN)

    def wait_for_end(self, serve: Callable[[], None], timeout: float) -> None:
        """Wait until the run is over everywhere; until then a restarted neighbour may need this process.

        Args:
            serve: called repeatedly.
            timeout: seconds.
        """
        deadline = time.monotonic() + timeout
        self._waiting_for_end = True
        try:
            while not self.finished.wait(0.1) and time.monotonic() < deadline:
                serve()
        except Interrupted:
            if not self.finished.is_set():
                raise
        finally:
            self._waiting_for_end = False

    def _on_stop_signal(self, number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN if number == PARENT_GONE else self._on_wake)
        self._reason = f"asked to stop by {signal_name(number)}"
        self._stop_requests.put(self._reason)

    def _forward_stop(self) -> None:
        """Report a stop signal; not done in its handler, which may have interrupted a send on the same channel."""
        self._send({"type": "leave", "why": self._stop_requests.get()})

    def _on_wake(self, number: int, frame: FrameType | None) -> None:
        if self._over.is_set():
            return
        self._over.set()
        for other in (*self._stop_signals, WAKE):
            signal.signal(other, signal.SIG_IGN)
        raise Interrupted(self._reason)

    def _listen(self) -> None:
        while not self._over.is_set():
            try:
                message = self._control.poll(POLL_SECONDS)
            except TrainingError as error:  # it has ended, or its message is malformed
                self._interrupt(str(error))
                return
            kind = message.get("type") if message else None
            if kind == "committed" and message is not None:
                self._committed(int(message["steps"]))
            elif kind == "stacks":
                self._send({"type": "stacks", "nccl": self._stacks()})
            elif kind == "finish":
                self.finished.set()
                if self._waiting_for_end:
                    self._interrupt("the run is over")
                return
            elif kind == "failure" and message is not None:
                with suppress(TrainingError):
                    self.root_cause = FailureReport.from_message(message)
            elif kind == "stop":
                self._interrupt("the coordinator ended the run")
                return

    def _interrupt(self, reason: str) -> None:
        if self._over.is_set():
            return
        self._reason = reason
        deadline = time.monotonic() + FORCE_SECONDS
        while time.monotonic() < deadline:
            # Repeatedly, because a signal that arrives just before a call blocks does not interrupt it.
            signal.pthread_kill(threading.main_thread().ident or 0, WAKE)
            if self._over.wait(WAKE_SECONDS):
                return
        _log.error("stuck in a call that cannot be interrupted; ending at once (%s)", reason)
        os._exit(1)

    def _send_heartbeats(self) -> None:
        suspension = SuspensionDetector(2 * self._heartbeat_seconds + 1.0)
        while not self._over.wait(self._heartbeat_seconds):
            suspended, since = suspension.seconds(), self._activity.since
            if suspended and since is not None:  # it may also have started just now
                self._activity.since = min(since + suspended, time.monotonic())
            since = self._activity.computing_since()
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
