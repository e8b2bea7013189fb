"""What a feed and one of its workers say to each other through two pipes; the worker is played by the test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from typing import IO, Any

import pytest

from workers.control.start_messages import FeedWorkerStart
from workers.feed import worker_process as module
from workers.feed.batch_plan import Chunk
from workers.feed.worker_process import STOP_SIGNALS, Worker, how

START = FeedWorkerStart(
    data="{}", num_views=2, seed=5, ring=7, slot_bytes=64, workers=2, worker=1, shared=None, core=None
)


class Process:
    """Stands for the process: keeps its ends of the pipes."""

    def __init__(self, *_: object, **settings: Any) -> None:
        orders, self._stdin = os.pipe()
        self._stdout, answers = os.pipe()
        self.orders: IO[bytes] = os.fdopen(orders, "rb", buffering=0)
        self.answers: IO[bytes] = os.fdopen(answers, "wb", buffering=0)
        self.stdin: IO[bytes] = os.fdopen(self._stdin, "wb", buffering=0)
        self.stdout: IO[bytes] = os.fdopen(self._stdout, "rb", buffering=0)
        self.settings = settings
        self.blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        self.returncode: int | None = None
        self.killed = self.held = False

    def wait(self, timeout: float) -> int:
        if self.held or self.returncode is None:
            raise subprocess.TimeoutExpired("worker", timeout)
        return self.returncode

    def kill(self) -> None:
        self.killed = True
        if not self.held:
            self.returncode = -signal.SIGKILL


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    monkeypatch.setattr(module.subprocess, "Popen", Process)
    made = Worker(START)
    yield made
    for end in ("orders", "answers", "stdin", "stdout"):
        getattr(made.process, end).close()


def played(worker: Worker) -> Any:
    return worker.process


def test_a_worker_is_told_first_what_it_needs_to_know(worker: Worker) -> None:
    assert json.loads(played(worker).orders.readline()) == START.to_message()
    assert played(worker).settings["pass_fds"] == [7]


def test_a_worker_starts_deaf_to_the_signals_of_the_whole_group(worker: Worker) -> None:
    """It would die of Ctrl-C before it has said that it ignores it."""
    assert set(STOP_SIGNALS) <= played(worker).blocked
    assert not set(STOP_SIGNALS) & signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_words_are_heard_whole_however_they_come(worker: Worker) -> None:
    assert worker.answers() == []
    played(worker).answers.write(b'{"rea')
    assert worker.answers() == []
    played(worker).answers.write(b'dy": true}\n{"done": []}\n{"ha')
    assert worker.answers() == [{"ready": True}, {"done": []}]
    assert not worker.ended
    played(worker).answers.close()
    assert worker.answers() == []
    assert worker.ended


def test_whoever_has_gone_is_told_nothing(worker: Worker) -> None:
    played(worker).orders.close()
    worker.give(Chunk(0, 0, 0, 0, 1, (0,)))
    worker.hang_up()
    worker.hang_up()


@pytest.mark.parametrize(
    ("ends", "held", "code", "killed"),
    [(0, False, 0, False), (3, False, 3, False), (None, False, -signal.SIGKILL, True), (None, True, -9, True)],
)
def test_a_worker_that_does_not_end_is_killed_and_one_that_cannot_be_killed_is_left(
    worker: Worker, ends: int | None, held: bool, code: int, killed: bool
) -> None:
    played(worker).returncode, played(worker).held = ends, held
    assert worker.close() == code
    assert played(worker).killed == killed


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (1, "it ended with exit code 1. The log of this process says more"),
        (-signal.SIGKILL, "it was killed by signal 9 (SIGKILL). If nobody killed it, memory ran out"),
        (-signal.SIGBUS, "(SIGBUS). Shared memory ran out"),
        (-signal.SIGSEGV, "(SIGSEGV). A library crashed, perhaps on a damaged file"),
        (-1000, "it was killed by signal 1000 (unknown). A library crashed"),
    ],
)
def test_how_a_worker_ended_and_what_that_mostly_means(code: int, words: str) -> None:
    assert words in how(code)
