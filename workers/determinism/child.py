"""Work in a process of its own, which may die, and which holds no memory once it has ended.

It is forked: what the libraries need is loaded, and no thread of theirs has started yet.
"""

from __future__ import annotations

import mmap
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from workers.run.json_lines import LineReader, write_line
from workers.run.signals import leave_with_parent

NOTE_BYTES = 4096


class Note:
    """A line that a process leaves for the one that forked it, even if it dies while it writes the next."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, NOTE_BYTES)

    def write(self, text: str) -> None:
        """Instead of what was there."""
        line = text.encode()[: NOTE_BYTES - 1]
        self._shared[: len(line) + 1] = line + b"\0"

    def read(self) -> str:
        """The last that was written."""
        return self._shared[:].split(b"\0", 1)[0].decode(errors="replace")


@dataclass(frozen=True)
class Outcome:
    """How the work ended.

    Args:
        result: what it returned; None if it did not come to its end.
        signal: number of the signal that ended the process; 0 for none.
        late: it took too long, and was ended.
        error: what it raised, in one line.
    """

    result: Any = None
    signal: int = 0
    late: bool = False
    error: str = ""


def in_a_child(work: Callable[[], Any], seconds: float) -> Outcome:
    """Do `work`, which returns what JSON can hold, in a forked process, within `seconds`."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # Python warns of threads beside a fork. Those there are wait for the parent or the coordinator, without locks.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        _be_the_child(work, writer)
    os.close(writer)
    try:
        answers = LineReader(reader)
        answer = next(iter(answers.read(seconds)), None)
    finally:
        os.close(reader)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)  # it has answered, or is late, or this process is asked to stop
        _, status = os.waitpid(pid, 0)
    if answer is not None:
        return Outcome(**answer)
    if not answers.closed:
        return Outcome(late=True)
    return Outcome(signal=os.WTERMSIG(status)) if os.WIFSIGNALED(status) else Outcome(error="it ended without a word")


def _be_the_child(work: Callable[[], Any], writer: int) -> None:
    """Never returns, and never writes to what the parent has open: its connections end with the parent alone."""
    try:
        leave_with_parent(signal.SIGKILL)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_DFL)
        _close_all_but(0, 1, 2, writer)
        try:
            answer = {"result": work()}
        except Exception as error:
            with suppress(OSError, ValueError):  # it is for the log alone
                traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}
        write_line(writer, answer)
        with suppress(OSError, ValueError):
            sys.stderr.flush()
    finally:
        os._exit(0)


def _close_all_but(*kept: int) -> None:
    for descriptor in sorted(int(name) for name in os.listdir("/proc/self/fd")):
        if descriptor not in kept:
            with suppress(OSError):
                os.close(descriptor)
