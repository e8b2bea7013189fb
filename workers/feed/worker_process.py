"""One worker process of a feed, as its parent sees it: what it was given, what it says, how it ended."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from workers.control.start_messages import FeedWorkerStart
from workers.feed.batch_plan import Chunk
from workers.run.environment import interpreter, process_environment
from workers.run.json_lines import LineReader, write_line
from workers.run.signals import WARNINGS

CLOSE_SECONDS = 5.0
"""A worker ends at once when its pipe is closed, unless the system itself holds it."""
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, *WARNINGS)
"""Of Ctrl-C and of schedulers, which go to every process of a group: the feed is needed until the run has left."""


class Worker:
    """`workers.feed.worker_main`, started.

    Args:
        start: what it is started with; it inherits the descriptors that are named there.
    """

    def __init__(self, start: FeedWorkerStart) -> None:
        self.number = start.worker
        self.ready = False
        """Whether it has started and may be given something; until then the others take over."""
        self.ended = False
        self.outstanding: deque[Chunk] = deque()
        """What it has been given and not yet made, in order."""
        with _stop_signals_blocked():
            self.process = subprocess.Popen(
                interpreter("workers.feed.worker_main"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=[number for number in (start.ring, start.shared) if number is not None],
                env=process_environment(threads=1),
            )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._requests, self._answers = self.process.stdin, self.process.stdout
        self._reader = LineReader(self._answers.fileno())
        with suppress(OSError):  # it has gone, which its answers will show
            write_line(self._requests.fileno(), start.to_message())

    def fileno(self) -> int:
        """Readable when it says something or has ended."""
        return self._answers.fileno()

    def give(self, chunk: Chunk) -> None:
        """Have it make `chunk`."""
        self.outstanding.append(chunk)
        with suppress(OSError):  # it has gone, which its answers will show
            os.write(self._requests.fileno(), chunk.to_bytes())

    def answers(self) -> list[dict[str, Any]]:
        """What it has answered since the last call; sets `ended` if nothing can follow."""
        answers = self._reader.read()
        self.ended = self._reader.closed
        return answers

    def hang_up(self) -> None:
        """Have it end at once, whatever it is doing."""
        with suppress(OSError):
            self._requests.close()

    def close(self) -> int:
        """Hang up and wait for its end; its exit code, negative if a signal ended it. May be called again."""
        self.hang_up()
        try:
            code = self.process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            with suppress(subprocess.TimeoutExpired):  # a dead file system may hold even a killed process
                self.process.wait(CLOSE_SECONDS)
            code = -signal.SIGKILL if self.process.returncode is None else self.process.returncode
        self._answers.close()
        return code


@contextmanager
def _stop_signals_blocked() -> Iterator[None]:
    """A child inherits the mask: it must not die of Ctrl-C before it has said that it ignores it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def how(code: int) -> str:
    """How a process ended and what that mostly means, for a message; two sentences, without the last full stop."""
    if code >= 0:
        return f"it ended with exit code {code}. The log of this process says more"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "unknown"
    reasons = {
        "SIGKILL": "If nobody killed it, memory ran out: lower data.workers or data.batch_size",
        "SIGBUS": "Shared memory ran out (/dev/shm, or the limit of a container): lower data.batch_size",
    }
    crashed = "A library crashed, perhaps on a damaged file: the image that it was working on is named"
    return f"it was killed by signal {-code} ({name}). {reasons.get(name, crashed)}"
