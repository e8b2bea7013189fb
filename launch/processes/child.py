"""Processes that end when their parent does: each watches a pipe that its parent holds open."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from launch.processes.fork_client import Forked, ForkServer
from pipeline.errors import TrainingError
from pipeline.ordinary_files import open_to_write
from workers.control.start_messages import StartMessage
from workers.run.environment import interpreter
from workers.run.json_lines import LineReader, read_line, write_line

KILL_SECONDS = 10.0
"""For the kernel to end a process that was killed; one that waits for a dead disk or device may take for ever."""


Record = TypeVar("Record", bound=StartMessage)


class Start(Protocol):
    """What a process is started with."""

    @property
    def run_dir(self) -> str:
        """Of the run that it belongs to."""
        ...

    def to_message(self) -> dict[str, Any]:
        """As JSON has it."""
        ...


class Child:
    """A Python module in a process of its own, started with one JSON object on its standard input.

    More JSON objects may follow, one per line. It may answer in the same way, through a pipe whose number is its first
    argument. Secrets travel here, never as arguments.

    Args:
        module: run as `python -m`.
        start: the first object, which the process reads by `read_start`.
        environment: of the process.
        log: where its errors go.
        quiet: what it prints goes there too, not to the terminal.
        server: forks the process, which then need not import anything itself; else it is a new interpreter.
        held: open files that it keeps open as long as it lives, such as the lock of the run.
    """

    def __init__(
        self,
        module: str,
        start: Start,
        environment: dict[str, str],
        log: Path,
        *,
        quiet: bool = False,
        server: ForkServer | None = None,
        held: Sequence[int] = (),
    ) -> None:
        self._reader, answers = os.pipe()
        orders, self._writer = os.pipe()
        self._answers = LineReader(self._reader)
        self.process: subprocess.Popen[bytes] | Forked
        try:
            with open_to_write(log, log.parent.parent) as file:
                streams = (orders, file.fileno() if quiet else 1, file.fileno())
                if server is None:
                    self.process = _new_interpreter(module, environment, streams, answers, held)
                else:
                    title = f"onward {module} {log.stem} {start.run_dir}"
                    self.process = server.start(module, title, environment, (*streams, answers, *held))
        finally:
            os.close(answers)
            os.close(orders)
        self.send(start.to_message())

    def send(self, message: dict[str, Any]) -> None:
        """Send one object; nothing happens if the process has gone."""
        with contextlib.suppress(OSError):
            write_line(self._writer, message)

    def messages(self, timeout: float = 0.0) -> list[dict[str, Any]]:
        """The objects that the process has sent since the last call; waits `timeout` seconds for the first."""
        return self._answers.read(timeout)

    def first_message(self, timeout: float) -> dict[str, Any]:
        """The object that the process announces itself with.

        Raises:
            TrainingError: it ended, or said nothing in time.
        """
        messages = self.messages(timeout)
        if not messages:
            raise TrainingError("the coordinator did not start; see logs/coordinator.log")
        return messages[0]

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code; it is killed if it is still there after `timeout` seconds."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return wait_for_killed(self.process)

    def close(self) -> None:
        """Kill what is left of it and let go of its pipes."""
        self.wait(0.0)
        for descriptor in (self._reader, self._writer):
            with contextlib.suppress(OSError):
                os.close(descriptor)


def wait_for_killed(process: subprocess.Popen[bytes] | Forked) -> int:
    """The exit code of a process that was sent SIGKILL; one that the kernel holds counts as ended."""
    try:
        return process.wait(KILL_SECONDS)
    except subprocess.TimeoutExpired:
        logging.warning("process %d was killed and has not ended: a device or a file system holds it", process.pid)
        return -signal.SIGKILL


def _new_interpreter(
    module: str, environment: dict[str, str], streams: tuple[int, int, int], answers: int, held: Sequence[int]
) -> subprocess.Popen[bytes]:
    stdin, stdout, stderr = streams
    return subprocess.Popen(
        interpreter(module, str(answers)),
        env=environment,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        pass_fds=[answers, *held],
        start_new_session=True,
    )


def ended(code: int) -> str:
    """How a process ended, for a message."""
    if code < 0:
        return f"its process was killed by signal {-code} ({signal.Signals(-code).name})"
    return f"its process ended with exit code {code}"


def read_start(form: type[Record]) -> Record:
    """What this process was started with; what follows on its standard input is left for `listen_to_parent`."""
    try:
        return form.from_message(read_line(0))
    except EOFError:
        raise SystemExit("this module is started by 'onward train' or torchrun, not by hand") from None


def listen_to_parent(received: Callable[[dict[str, Any]], None], orphaned: Callable[[], None]) -> None:
    """From a thread: `received` gets every further object, `orphaned` is called when the parent has gone."""

    def listen() -> None:
        reader = LineReader(0)
        while not reader.closed:
            for message in reader.read(None):
                received(message)
        orphaned()

    threading.Thread(target=listen, name="parent", daemon=True).start()
