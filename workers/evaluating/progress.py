"""How far an evaluation is: one line that is redrawn on a terminal, a plain line now and then in a file."""

from __future__ import annotations

import time
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

PLAIN_SECONDS = 10.0
"""At most one plain line in this time."""


class ProgressLine:
    """Shows what is being done; a context manager.

    Args:
        console: where it is shown.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None
        self._printed, self._text = time.monotonic(), ""

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, text: str, done: int, total: int) -> None:
        """Show that `done` of `total` are done of what `text` names."""
        now = time.monotonic()
        if self._live:
            # The beginning of something is drawn at once, however soon it ends; its progress a few times a second.
            self._live.update(Text(f"{text}: {done} of {total}"), refresh=text != self._text)
            self._text = text
        elif now - self._printed >= PLAIN_SECONDS:
            self._printed = now
            self.note(f"{text}: {done} of {total}")

    def note(self, text: str) -> None:
        """Print a sentence above the line."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
