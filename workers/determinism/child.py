"""Runs a function in a forked process, which may crash and whose memory is freed at its end.

Forking is safe here: the libraries are loaded, and none of their threads has started yet.
"""

from __future__ import annotations

import gc
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
from workers.run.signals import signal_on_parent_death

NOTE_BYTES = 4096


class Note:
    """A line of text in shared memory, which the parent can read even after the child has crashed."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, NOTE_BYTES)

    def write(self, text: str) -> None:
        """Replace the text."""
        line = text.encode()[: NOTE_BYTES - 1]
        self._shared[: len(line) + 1] = line + b"\0"

    def read(self) -> str:
        """The text that was written last."""
        return self._shared[:].split(b"\0", 1)[0].decode(errors="replace")


@dataclass(frozen=True)
class Outcome:
    """How the function ended.

    Args:
        result: its return value; None if it did not return.
        signal: number of the signal that killed the process; 0 for none.
        late: whether it exceeded the time limit and was killed.
        error: the exception that it raised, in one line.
    """

    result: Any = None
    signal: int = 0
    late: bool = False
    error: str = ""


def run_in_child(work: Callable[[], Any], seconds: float) -> Outcome:
    """Run `work`, which returns what JSON can hold, in a forked process, with a limit of `seconds`."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # Python warns of forking beside threads. Ours wait for the parent or the coordinator and hold no locks.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        _child_main(work, writer)
    os.close(writer)
    try:
        answers = LineReader(reader)
        answer = next(iter(answers.read(seconds)), None)
    finally:
        os.close(reader)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)  # it has answered or is late, or this process is being stopped
        _, status = os.waitpid(pid, 0)
    if answer is not None:
        return Outcome(**answer)
    if not answers.closed:
        return Outcome(late=True)
    return Outcome(signal=os.WTERMSIG(status)) if os.WIFSIGNALED(status) else Outcome(error="it ended without a word")


def _child_main(work: Callable[[], Any], writer: int) -> None:
    """Body of the forked process; never returns. Closes inherited descriptors: connections must end with the parent."""
    try:
        # What the parent no longer uses is its own to free: some libraries end a process that closes its connections.
        gc.freeze()
        signal_on_parent_death(signal.SIGKILL)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_DFL)
        _close_all_but(0, 1, 2, writer)
        try:
            answer = {"result": work()}
        except Exception as error:
            with suppress(OSError, ValueError):  # only for the log
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
