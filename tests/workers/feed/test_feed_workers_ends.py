"""Worker processes of the feed end with it, with their process, and not with a signal to its group."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.runs import ROOT
from tests.waiting import LIMIT, wait_until
from tests.workers.feed.feed_cases import config, fault_in_workers, ready, workers_of
from tests.workers.links.processes import alive
from workers.feed import Feed
from workers.feed import worker_process as worker
from workers.feed.worker_process import Worker

pytestmark = pytest.mark.timeout(600)  # on a very busy machine workers start in minutes


@pytest.mark.processes
def test_close_ends_the_workers_in_the_middle_of_their_work(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault_in_workers(tmp_path, monkeypatch, "time.sleep(600)")
    monkeypatch.setattr(worker, "CLOSE_SECONDS", LIMIT)
    running = Feed(config(photos, workers=2))
    wait_until(lambda: len(running._ring.current()) == 2, "work")
    running.close()
    assert [process.process.returncode for process in workers_of(running)] == [0, 0], "none had to be killed"


@pytest.mark.processes
def test_workers_end_with_a_parent_that_is_killed(photos: Path, tmp_path: Path) -> None:
    """One is in the middle of a read that hangs."""
    parent = start_parent(photos, tmp_path, "time.sleep(600)", busy=2)
    assert parent.stdout is not None
    pids = [int(word) for word in parent.stdout.readline().split()]
    assert len(pids) == 2
    parent.kill()
    parent.wait(LIMIT)
    wait_until(lambda: not any(alive(pid) for pid in pids), "their end")


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_leaves_the_workers_at_work(
    photos: Path, tmp_path: Path, number: signal.Signals
) -> None:
    parent = start_parent(photos, tmp_path, "time.sleep(0.01)", busy=0)
    assert parent.stdout is not None
    pids = [int(word) for word in parent.stdout.readline().split()]
    os.killpg(parent.pid, number)
    assert parent.stdout.readline() == "120 batches, 0 restarts\n"
    assert parent.wait(LIMIT) == 0
    wait_until(lambda: not any(alive(pid) for pid in pids), "their end")


PARENT = """
import signal, sys, time
from pathlib import Path
from tests.waiting import LIMIT, wait_until
from tests.workers.feed.feed_cases import config
from workers.feed import Feed

for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: None)
with Feed(config(Path(sys.argv[1]), workers=2, epochs=40)) as feed:
    while sum(worker.ready for worker in feed._source._workers) < 2 or len(feed._ring.current()) < int(sys.argv[2]):
        time.sleep(0.01)
    print(*(worker.process.pid for worker in feed._source._workers), flush=True)
    count = sum(1 for _ in feed)
    print(f"{count} batches, {feed.measures().restarts} restarts", flush=True)
"""


def start_parent(photos: Path, folder: Path, fault: str, busy: int) -> subprocess.Popen[str]:
    """A process that has a feed with two workers; says their numbers when both are ready and `busy` at an image."""
    with pytest.MonkeyPatch.context() as patch:
        fault_in_workers(folder, patch, fault)
        path = [str(folder / "customized"), str(ROOT)]
        return subprocess.Popen(
            [sys.executable, "-c", PARENT, str(photos), str(busy)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )


@pytest.mark.processes
def test_only_threads_of_the_feed_block_signals(photos: Path) -> None:
    """Ctrl-C must still reach the process that has a feed."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with Feed(config(photos, workers=1)) as running:
        wait_until(lambda: ready(running, 1), "a worker")
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before - set(worker.STOP_SIGNALS)
        assert threading.current_thread() is threading.main_thread()


def test_a_worker_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stuck:
        def __init__(self) -> None:
            self.waits: list[float] = []
            self.returncode: int | None = None

        def wait(self, timeout: float) -> int:
            self.waits.append(timeout)
            if len(self.waits) == 1:
                raise subprocess.TimeoutExpired("stuck", timeout)
            self.returncode = -signal.SIGKILL
            return self.returncode

        def kill(self) -> None:
            assert len(self.waits) == 1

    worker: Any = Worker.__new__(Worker)
    reader, writer = os.pipe()
    worker.process, worker._requests, worker._answers = Stuck(), os.fdopen(writer, "wb"), os.fdopen(reader, "rb")
    assert Worker.close(worker) == -signal.SIGKILL
