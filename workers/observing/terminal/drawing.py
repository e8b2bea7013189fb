"""Lines that are redrawn in place on a terminal, and a progress line."""

from __future__ import annotations

import time
from typing import Self

from rich.console import Console as RichConsole
from rich.console import ConsoleRenderable, RenderableType
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType
from rich.text import Text

from workers.observing.terminal.console import Console

REFRESH_PER_SECOND = 4
PLAIN_SECONDS = 10.0
"""Shortest interval between two plain progress lines."""


class MovingLines(Live):
    """Lines that are redrawn in place a few times per second; from the top of the window after it became narrower.

    When a terminal becomes narrower it rewraps existing lines, so the position of the first one is unknown.

    Args:
        lines: what is drawn.
        console: where to.
        transient: whether they are erased at the end; used for a single line, for which the window is never cleared.
    """

    def __init__(self, lines: RenderableType, console: RichConsole, transient: bool = False) -> None:
        self._width = console.width
        super().__init__(
            lines,
            console=console,
            refresh_per_second=REFRESH_PER_SECOND,
            redirect_stderr=transient,
            transient=transient,
        )

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """See `Live.process_renderables`: the first of what it returns goes back to the first line."""
        found = super().process_renderables(renderables)
        if self.console.width < self._width and not self.transient:
            found[0] = Control(ControlType.HOME, ControlType.CLEAR)
        self._width = self.console.width
        return found


class ProgressLine:
    """The progress of a task: one line that is redrawn on a terminal, a plain line from time to time in a file.

    A context manager.

    Args:
        console: where to; nothing is shown where it is quiet.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        moves = console.out.is_terminal and not console.quiet
        self._live = MovingLines(Text(), console.out, transient=True) if moves else None
        self._printed, self._text = time.monotonic(), ""

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, text: str, done: int, total: int) -> None:
        """Show that `done` of `total` are done of the task `text`."""
        now = time.monotonic()
        if self._live:
            # A new task is drawn at once, even if it ends soon; its progress a few times per second.
            self._live.update(Text(f"{text}: {done} of {total}"), refresh=text != self._text)
            self._text = text
        elif now - self._printed >= PLAIN_SECONDS:
            self._printed = now
            self._console.say(f"{text}: {done} of {total}")

    def note(self, text: str) -> None:
        """Print a message that stays."""
        self._console.warn(text)
