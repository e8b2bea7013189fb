"""Runs a function in a process of its own, which may crash and whose memory is freed at its end.

- Forked, in a third of a second: where the libraries are loaded, and none of their threads has started yet.
- In a new interpreter, in seconds: where threads compute, and for all that uses a GPU. A forked process cannot use CUDA
  if its parent has only asked how many GPUs there are, as a module of the user's may do when it is imported.
"""

from __future__ import annotations

import gc
import mmap
import os
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pipeline.ordinary_files import open_unnamed_file
from workers.run.environment import interpreter, module_path
from workers.run.json_lines import last_answer, read_line, write_line
from workers.run.signals import signal_on_parent_death

NOTE_BYTES = 4096


class Note:
    """A line of text in shared memory, which the parent can read even after the child has crashed.

    Args:
        descriptor: of the memory, inherited from the parent, which has made the note; a new one if not given.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        if descriptor is None:
            descriptor = open_unnamed_file("onward-note")
            os.ftruncate(descriptor, NOTE_BYTES)
        self.descriptor = descriptor
        self._shared = mmap.mmap(descriptor, NOTE_BYTES)

    def close(self) -> None:
        """Free the memory."""
        self._shared.close()
        os.close(self.descriptor)

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

    def kill() -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    return _outcome(reader, writer, seconds, kill, lambda: os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def run_in_interpreter(module: str, task: Mapping[str, Any], note: Note, seconds: float) -> Outcome:
    """Run the main program `module`, which calls `answer_task`, in a new interpreter, with a limit of `seconds`.

    Args:
        module: its full name.
        task: what it is given, as JSON can hold it.
        note: which it can write.
        seconds: until it is killed; they include the start of the interpreter.
    """
    reader, writer = os.pipe()
    process = subprocess.Popen(
        interpreter(module, str(writer), str(note.descriptor)),
        stdin=subprocess.PIPE,
        pass_fds=[writer, note.descriptor],
        env={**os.environ, "PYTHONPATH": module_path()},
    )
    assert process.stdin is not None
    with process.stdin, suppress(OSError):  # it has ended, which the outcome will show
        write_line(process.stdin.fileno(), task)
    return _outcome(reader, writer, seconds, process.kill, process.wait)


def answer_task(work: Callable[[Mapping[str, Any], Note], Any]) -> None:
    """Body of a process that `run_in_interpreter` has started; never returns."""
    writer, note = int(sys.argv[1]), Note(int(sys.argv[2]))
    signal_on_parent_death(signal.SIGKILL)
    _answer(lambda: work(read_line(0), note), writer)


def _outcome(reader: int, writer: int, seconds: float, kill: Callable[[], None], wait: Callable[[], int]) -> Outcome:
    """Wait for the answer of a process, end it, and say how it ended; closes both ends of its pipe."""
    os.close(writer)
    try:
        answer = last_answer(reader, seconds, kill, wait)
    finally:
        os.close(reader)
    if answer.message is not None:
        return Outcome(**answer.message)
    if answer.late:
        return Outcome(late=True)
    return Outcome(signal=-answer.code) if answer.code < 0 else Outcome(error="it ended without a word")


def _child_main(work: Callable[[], Any], writer: int) -> None:
    """Body of the forked process; never returns. Closes inherited descriptors: connections must end with the parent."""
    try:
        # What the parent no longer uses is its own to free: some libraries end a process that closes its connections.
        gc.freeze()
        signal_on_parent_death(signal.SIGKILL)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_DFL)
        _close_all_but(0, 1, 2, writer)
        _answer(work, writer)
    finally:
        os._exit(0)


def _answer(work: Callable[[], Any], writer: int) -> None:
    """Do the work, write its result or its error into the pipe, and end this process."""
    try:
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
