"""What moves on a terminal: lines that are redrawn in place, and one line of how far something is."""

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
"""At most one plain line of how far it is in this time."""


class MovingLines(Live):
    """Redrawn in place a few times a second; and from the top of the window after it has become narrower.

    Terminals break the lines that are there in their own ways when they become narrower, so nobody can tell how far up
    the first one has gone.

    Args:
        lines: what is drawn.
        console: where to.
        transient: they vanish at the end; then they are one line, for which nothing else on the window is cleared.
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
    """What is being done and how far it is: one line that moves on a terminal, a plain line now and then in a file.

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

    def tell(self, text: str, done: int, total: int) -> None:
        """`done` of `total` are done of what `text` says."""
        now = time.monotonic()
        if self._live:
            # What begins is drawn at once, however soon it ends; how far it is, a few times a second.
            self._live.update(Text(f"{text}: {done} of {total}"), refresh=text != self._text)
            self._text = text
        elif now - self._printed >= PLAIN_SECONDS:
            self._printed = now
            self._console.say(f"{text}: {done} of {total}")

    def note(self, text: str) -> None:
        """A sentence that stays."""
        self._console.warn(text)
