"""JSON objects over a pipe, one per line: the messages between a process and the one that started it.

Used by the processes of a run and by the workers of a feed. A line is bounded, and so is every wait for one.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.errors import TrainingError
from workers.run.polling import readable

LINE_BYTES = 1 << 24
"""Longest line; the longest that we write, the configuration of a feed worker, has some ten kilobytes."""


def write_line(descriptor: int, message: Mapping[str, Any]) -> None:
    """Write one object; blocks while the pipe is full. Raises `OSError` where nobody reads any more."""
    data = json.dumps(message).encode() + b"\n"
    while data:
        data = data[os.write(descriptor, data) :]


def read_line(descriptor: int) -> dict[str, Any]:
    """The next object. Reads byte by byte, so that what follows stays in the pipe for another reader.

    Raises:
        EOFError: the pipe ended before the line did.
        TrainingError: the line is no JSON object, or too long.
    """
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(descriptor, 1)
        if not byte:
            raise EOFError
        line = _bounded(line + byte)
    return _object(line)


class LineReader:
    """Collects the objects that come through a pipe; for one thread.

    Args:
        descriptor: of the reading end, which stays the caller's to close.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._rest = descriptor, b""
        self.closed = False
        """Whether the writer has gone: no further object will come."""

    def read(self, timeout: float | None = 0.0) -> list[dict[str, Any]]:
        """All objects that have come since the last call; raises `TrainingError` as `read_line`.

        Args:
            timeout: seconds to wait for the first of them; None waits until there is one or the writer has gone.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.closed and len(self._rest) <= LINE_BYTES:
            remaining = None if deadline is None else max(deadline - time.monotonic(), 0.0)
            if not readable([self._descriptor], 0.0 if b"\n" in self._rest else remaining):
                break
            piece = os.read(self._descriptor, 1 << 16)
            self.closed = not piece
            self._rest += piece
        *lines, self._rest = self._rest.split(b"\n")
        _bounded(self._rest)
        return [_object(line) for line in lines]


@dataclass(frozen=True)
class LastAnswer:
    """The one object that a child process was to send.

    Args:
        message: None if it sent none.
        late: it sent none in time, and was alive.
        code: with which it ended; negative: killed by that signal, which after an answer or too late is ours.
    """

    message: dict[str, Any] | None
    late: bool
    code: int


def last_answer(descriptor: int, seconds: float, kill: Callable[[], None], wait: Callable[[], int]) -> LastAnswer:
    """Wait for the one object that a child process sends, and end it; raises `TrainingError` as `read_line`.

    Args:
        descriptor: of the reading end, which stays the caller's to close.
        seconds: limit of the wait.
        kill: ends the process, also if an exception ends the wait; does nothing if it has ended.
        wait: returns its exit code once it has ended.
    """
    lines = LineReader(descriptor)
    try:
        message = next(iter(lines.read(seconds)), None)
    finally:
        kill()
        code = wait()
    return LastAnswer(message, message is None and not lines.closed, code)


def _bounded(line: bytes) -> bytes:
    if len(line) > LINE_BYTES:
        raise TrainingError(f"a process sent a line of more than {LINE_BYTES} bytes")
    return line


def _object(line: bytes) -> dict[str, Any]:
    message = parse_object(line)
    if message is None:
        raise TrainingError(f"a process sent a line that is no JSON object: {line[:100]!r}")
    return message


def parse_object(data: bytes) -> dict[str, Any] | None:
    """The JSON object that `data` encodes; None if it is anything else."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
