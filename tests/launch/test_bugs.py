"""What has happened to somebody once, why, and that it does not happen again: the command and who it starts."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections import Counter
from pathlib import Path
from typing import Any, cast

import pytest

from launch.processes import child as children
from launch.processes.child import wait_for_killed
from launch.processes.coordinator_main import Parent
from launch.processes.fork_client import Forked
from launch.processes.supervise import Supervision, make_private_dir
from pipeline.errors import UserError


def test_a_signal_while_notes_are_read_does_not_block_the_coordinator() -> None:
    """SIGTERM struck just when the coordinator read its notes: the handler waited for a lock that it itself held."""
    parent, heard, main = Parent(-1), 0, threading.get_ident()

    def storm() -> None:
        for _ in range(2000):
            signal.pthread_kill(main, signal.SIGUSR2)

    previous = signal.signal(signal.SIGUSR2, lambda number, frame: parent.add_event({"type": "leave"}))
    sender = threading.Thread(target=storm)
    try:
        sender.start()
        while sender.is_alive():
            heard += len(parent.events())
        sender.join()
        heard += len(parent.events())
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

        def send(self, message: dict[str, Any]) -> None:
            self.told.append(message)

    supervision, coordinator = cast(Any, Supervision.__new__(Supervision)), Coordinator()
    supervision._told, supervision._coordinator, supervision._attempts = set(), coordinator, Counter()
    for _ in range(2):
        supervision._children = {"stage 1": Gone()}
        Supervision._report_the_gone(supervision)
        Supervision._report_the_gone(supervision)
    assert [message["who"] for message in coordinator.told] == ["stage 1", "stage 1"]


def test_a_long_tmpdir_is_left_for_a_shorter_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scheduler set TMPDIR to 120 characters, too long for a socket: the run ended when its processes had begun."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("x" * 120)))
    short = make_private_dir()
    try:
        assert len(short) < 50
        assert Path(short, "key").stat().st_mode & 0o777 == 0o600
    finally:
        shutil.rmtree(short)

    def refuse(prefix: str, dir: str) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises(UserError, match=r"too long for a socket; '/tmp': Permission denied;.*Set TMPDIR to a folder"):
        make_private_dir()


@pytest.mark.processes
def test_a_kernel_without_pidfd_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """RHEL 8 and old Docker: pidfd_open is not there, and the command ended in a traceback."""

    def missing(pid: int) -> int:
        raise OSError(38, "Function not implemented")

    class Server:
        ended = False

        def listen(self, timeout: float = 0.0) -> None:
            pass

        def gone(self) -> bool:
            return self.ended

    monkeypatch.setattr(os, "pidfd_open", missing)
    child = subprocess.Popen(["sleep", "1000"])
    server = Server()
    forked = Forked(cast(Any, server), child.pid)
    try:
        assert not forked.gone()
        server.ended = True
        forked.kill()
        assert child.poll() is None, "whose parent is gone, its number may be somebody else's"
        server.ended = False
        forked.kill()
        assert child.wait(60) == -signal.SIGKILL
        assert forked.gone()
    finally:
        child.kill()
