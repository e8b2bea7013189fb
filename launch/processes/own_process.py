"""A command in a process of its own, for a Python program: what it says, how it is asked to stop, how it has ended.

The process is in a session of its own, so that neither Ctrl-C nor the end of a notebook's kernel kills it: it ends,
with a snapshot, when it is asked to, or when the program is gone and with it the other end of its standard input.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from typing import Any

from pipeline.errors import ConfigError, OnwardError, TrainingError, UserError
from workers.control.start_messages import CommandStart
from workers.observing.terminal.verbosity import VARIABLE, Verbosity
from workers.run.environment import interpreter, process_environment, without_launcher
from workers.run.json_lines import LineReader, write_line

POLL_SECONDS = 0.05
STOP = {"stop": True}
"""What it is told to stop; not by a signal, so that it can tell this from the end of the program."""
TAIL_BYTES = 2000
"""Of what a process printed, for the message where it died without a word."""
KILL_SECONDS = 10.0


class OwnProcess:
    """Starts the process; its methods may be called from any thread.

    Args:
        module: what it runs; reads `start` by `read_start` and answers through the descriptor that is its argument.
        start: what it is to do.
        shown: its standard output is this program's; else what it prints is kept for a message.
        verbosity: how much it prints; that of this program's environment if not given.
    """

    def __init__(self, module: str, start: CommandStart, shown: bool, verbosity: Verbosity | None = None) -> None:
        environment = without_launcher(process_environment(1))
        if verbosity is not None:
            environment[VARIABLE] = verbosity.value
        reader, answers = os.pipe()
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115  # closed in `_ended`
        self._lock, self._reader, self._answers = threading.Lock(), reader, LineReader(reader)
        self._said: list[dict[str, Any]] = []
        self._closed = False
        try:
            self._process = subprocess.Popen(
                interpreter(module, str(answers)),
                env=environment,
                stdin=subprocess.PIPE,
                stdout=None if shown else self._printed,
                stderr=self._printed,
                pass_fds=[answers],
                start_new_session=True,
            )
        finally:
            os.close(answers)
        assert self._process.stdin is not None
        with suppress(OSError):  # it has died already, which the next look shows
            write_line(self._process.stdin.fileno(), start.to_message())

    @property
    def pid(self) -> int:
        """Its process ID."""
        return self._process.pid

    def answer(self, key: str) -> Any:
        """The value of `key` in the first message that has it; None if there is none yet."""
        with self._lock:
            if not self._closed:
                self._said += self._answers.read(0.0)
            return next((message[key] for message in self._said if key in message), None)

    def poll(self) -> int | None:
        """Its exit code, minus the number of the signal that killed it, or None while it runs."""
        with self._lock:
            code = self._process.poll()
            if code is not None and not self._closed:
                self._said += self._answers.read(0.0)
                self._let_go()
            return code

    def wait_for(self, key: str) -> Any:
        """What it says of `key`, or None once it has ended without; raises `KeyboardInterrupt` in the main thread."""
        while (value := self.answer(key)) is None:
            if self.poll() is not None:
                return self.answer(key)
            time.sleep(POLL_SECONDS)
        return value

    def stop(self) -> None:
        """Ask it to stop as SIGTERM does: the first time after a snapshot, the second time at once."""
        with self._lock, suppress(OSError):  # it has ended
            if not self._closed and self._process.stdin is not None:
                write_line(self._process.stdin.fileno(), STOP)

    def end(self) -> None:
        """End it: it may put away what it has begun, for a few seconds."""
        self.stop()
        try:
            self._process.wait(KILL_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):  # the kernel holds it
                self._process.wait(KILL_SECONDS)

    def error(self) -> OnwardError | None:
        """What ended it, if it was refused or could not be done; of a run that failed, the run has the record."""
        if (told := self.answer("error")) is not None:
            return error_of(told)
        code = self.poll()
        if code is not None and code < 0:
            return TrainingError(f"process {self.pid} was killed by signal {-code} ({signal.Signals(-code).name})")
        if code and self.answer("ended") is None:
            return TrainingError(f"process {self.pid} ended with exit code {code} and did not say why: {self._tail}")
        return None

    def _let_go(self) -> None:
        """Close the pipes, and keep the end of what it printed."""
        self._closed = True
        size = self._printed.seek(0, os.SEEK_END)
        self._printed.seek(max(size - TAIL_BYTES, 0))
        self._tail = " ".join(self._printed.read().decode(errors="replace").split()) or "it printed nothing"
        self._printed.close()
        os.close(self._reader)
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()


def error_as_message(error: BaseException, sentence: str) -> dict[str, Any]:
    """An error as JSON, for `error_of` on the other side.

    Args:
        error: what was raised.
        sentence: that says it, as `launch.errors` words it.
    """
    if isinstance(error, ConfigError):
        return {"kind": "config", "key": error.path, "problem": error.problem, "remedy": error.remedy}
    return {"kind": "user" if isinstance(error, UserError | OSError) else "training", "sentence": sentence}


def error_of(message: dict[str, Any]) -> OnwardError:
    """The inverse of `error_as_message`."""
    if message["kind"] == "config":
        return ConfigError(message["key"], message["problem"], message["remedy"])
    return (UserError if message["kind"] == "user" else TrainingError)(message["sentence"])
