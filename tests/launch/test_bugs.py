"""What has happened to somebody once, why, and that it does not happen again: the command and who it starts."""

from __future__ import annotations

import signal
import subprocess
import threading
from typing import Any, cast

import pytest

from launch import children
from launch.children import wait_for_killed
from launch.coordinate import Parent
from launch.supervise import Supervision


def test_a_signal_while_notes_are_read_does_not_block_the_coordinator() -> None:
    """SIGTERM struck just when the coordinator read its notes: the handler waited for a lock that it itself held."""
    parent, heard, main = Parent(-1), 0, threading.get_ident()

    def storm() -> None:
        for _ in range(2000):
            signal.pthread_kill(main, signal.SIGUSR2)

    previous = signal.signal(signal.SIGUSR2, lambda number, frame: parent.hear({"type": "leave"}))
    sender = threading.Thread(target=storm)
    try:
        sender.start()
        while sender.is_alive():
            heard += len(parent.notes())
        sender.join()
        heard += len(parent.notes())
    finally:
        signal.signal(signal.SIGUSR2, previous)
    assert heard > 0


def test_who_was_killed_and_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage hung in a driver call, where SIGKILL has to wait: the command waited with it, for ever."""
    monkeypatch.setattr(children, "KILL_SECONDS", 0.01)

    class Held:
        pid = 4711

        def wait(self, timeout: float | None = None) -> int:
            assert timeout is not None
            raise subprocess.TimeoutExpired("held", timeout)

    assert wait_for_killed(cast(Any, Held())) == -signal.SIGKILL


def test_a_number_that_comes_again_is_another_process() -> None:
    """A restarted stage got the number of the one that had died, died too, and the coordinator was not told."""

    class Process:
        pid = 4711

        def poll(self) -> int:
            return -9

    class Gone:
        def __init__(self) -> None:
            self.process = Process()

    class Coordinator:
        def __init__(self) -> None:
            self.told: list[dict[str, Any]] = []

        def tell(self, message: dict[str, Any]) -> None:
            self.told.append(message)

    supervision, coordinator = cast(Any, Supervision.__new__(Supervision)), Coordinator()
    supervision._told, supervision._coordinator = set(), coordinator
    for _ in range(2):
        supervision._children = {"stage 1": Gone()}
        Supervision._report_the_gone(supervision)
        Supervision._report_the_gone(supervision)
    assert [message["who"] for message in coordinator.told] == ["stage 1", "stage 1"]
