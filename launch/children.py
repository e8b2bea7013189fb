"""Processes that end when their parent does: each watches a pipe that its parent holds open."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.errors import TrainingError


class Child:
    """A Python module in a process of its own, started with one JSON object on its standard input.

    More JSON objects may follow, one a line. It may answer in the same way, through a pipe whose number is its first
    argument. Secrets travel here, never as arguments.

    Args:
        module: run as `python -m`.
        start: the first object.
        environment: of the process.
        log: where its errors go.
        quiet: what it prints goes there too, not to the terminal.
    """

    def __init__(
        self, module: str, start: dict[str, Any], environment: dict[str, str], log: Path, quiet: bool = False
    ) -> None:
        reader, writer = os.pipe()
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, str(writer)],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=file if quiet else None,
                stderr=file,
                pass_fds=[writer],
                start_new_session=True,
            )
        os.close(writer)
        self._reader, self._heard = reader, b""
        self.tell(start)

    def tell(self, message: dict[str, Any]) -> None:
        """Send one object; nothing happens if the process has gone."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()

    def words(self, timeout: float = 0.0) -> list[Any]:
        """The objects that the process has sent since the last call; waits `timeout` seconds for the first."""
        deadline = time.monotonic() + timeout
        while b"\n" not in self._heard:
            ready, _, _ = select.select([self._reader], [], [], max(deadline - time.monotonic(), 0))
            piece = os.read(self._reader, 65536) if ready else b""
            if not piece:
                return []
            self._heard += piece
        *lines, self._heard = self._heard.split(b"\n")
        return [json.loads(line) for line in lines]

    def first_word(self, timeout: float) -> Any:
        """The object that the process announces itself with.

        Raises:
            TrainingError: it ended, or said nothing in time.
        """
        words = self.words(timeout)
        if not words:
            raise TrainingError("the coordinator did not start; see logs/coordinator.log")
        return words[0]

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code; it is killed if it is still there after `timeout` seconds."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def close(self) -> None:
        """Kill what is left of it and let go of its pipes."""
        self.wait(0.0)
        assert self.process.stdin is not None
        for close in (self.process.stdin.close, lambda: os.close(self._reader)):
            with contextlib.suppress(OSError):
                close()


def ended(code: int) -> str:
    """How a process ended, for a message."""
    if code < 0:
        return f"its process was killed by signal {-code} ({signal.Signals(-code).name})"
    return f"its process ended with exit code {code}"


def first_line() -> Any:
    """The object that this process was started with. Byte by byte: what follows belongs to `hear_parent`."""
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(0, 1)
        if not piece:
            raise SystemExit("this module is started by 'onward train' or torchrun, not by hand")
        line += piece
    return json.loads(line)


def hear_parent(heard: Callable[[Any], None], orphaned: Callable[[], None]) -> None:
    """From a thread: `heard` gets every further object, `orphaned` is called when the parent has gone."""

    def hear() -> None:
        rest = b""
        while piece := os.read(0, 4096):
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                heard(json.loads(line))
        orphaned()

    threading.Thread(target=hear, name="parent", daemon=True).start()
