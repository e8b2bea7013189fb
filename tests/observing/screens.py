"""What a terminal shows after a command has written to it: a pseudo-terminal, and an emulator that reads it."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import sys
import termios
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyte

from launch.processes.fork_client import Forked
from tests.runs import LIMIT, session_server
from tests.waiting import wait_until


@dataclass
class Screen:
    """A terminal, while a command runs on it and afterwards.

    Args:
        screen: what it shows.
        written: every byte that it was sent.
    """

    screen: pyte.HistoryScreen
    written: bytes
    code: int | None = None

    @property
    def rows(self) -> list[str]:
        """What is to be seen, from the top, and what has scrolled away above it."""
        above = ["".join(row[x].data for x in range(self.screen.columns)) for row in self.screen.history.top]
        return [row.rstrip() for row in [*above, *self.screen.display]]

    def with_text(self, text: str) -> list[str]:
        """The rows that have a text in them."""
        return [row for row in self.rows if text in row]


def on_a_terminal(
    module: str,
    arguments: Sequence[str],
    columns: int = 80,
    rows: int = 24,
    environment: dict[str, str] | None = None,
    meanwhile: Callable[[Screen, Forked, Callable[[int], None]], None] = lambda *_: None,
) -> Screen:
    """Run `python -m MODULE ARGUMENTS` to its end on a terminal of that size.

    Args:
        module, arguments: what is run.
        columns, rows: of the terminal.
        environment: beside ours.
        meanwhile: called again and again with the screen so far, the process, and what changes the columns.
    """
    ours, theirs = pty.openpty()
    shown = Screen(pyte.HistoryScreen(columns, rows, history=1000, ratio=1.0), b"")
    stream = pyte.ByteStream(shown.screen)

    def resize(to: int) -> None:
        _set_size(ours, to, rows)
        shown.screen.resize(rows, to)

    _set_size(theirs, columns, rows)
    variables = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
    given = {**variables, "TERM": "xterm-256color", **(environment or {})}
    sys.audit("tests.process", module)
    process = session_server().run(module, arguments, given, (theirs, theirs, theirs))
    os.close(theirs)

    def ended() -> bool:
        if (piece := _read(ours)) is None:
            return True
        shown.written += piece
        stream.feed(piece)
        meanwhile(shown, process, resize)
        return False

    try:
        wait_until(ended, lambda: f"the end after {shown.rows}", LIMIT, pause=0.0)
        shown.code = process.wait(LIMIT)
    finally:
        process.kill()
        process.wait(LIMIT)
        os.close(ours)
    return shown


def _set_size(descriptor: int, columns: int, rows: int) -> None:
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def _read(descriptor: int) -> bytes | None:
    """What has been written, maybe nothing; None when nobody is left who could write."""
    if not select.select([descriptor], [], [], 0.1)[0]:
        return b""
    try:
        return os.read(descriptor, 65536) or None
    except OSError:  # the other end is closed
        return None
