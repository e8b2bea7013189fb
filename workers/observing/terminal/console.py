"""Where a run speaks to its user."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from pipeline.errors import printable
from workers.observing.terminal.safe_stream import survive_lost_output
from workers.observing.terminal.verbosity import Verbosity, attached

ASCII = str.maketrans({"→": "->", "·": "-"})


class PrintableConsole(Console):
    """A console of rich that writes text as `printable` spells it; rich itself would pass escape sequences on."""

    def print(self, *objects: Any, **how: Any) -> None:
        """See `Console.print`."""
        super().print(*(printable(each) if isinstance(each, str) else each for each in objects), **how)


class Terminal:
    """Sentences for the user.

    Args:
        console: where to; one that is interactive may be drawn on.
        verbosity: which of them.
    """

    def __init__(self, console: Console, verbosity: Verbosity = Verbosity.NORMAL) -> None:
        self.console, self.verbosity = console, verbosity

    @classmethod
    def of_process(cls) -> Terminal:
        """On the standard output. Nothing but text goes into a file, a pipe or a dumb terminal, whatever is set."""
        survive_lost_output()
        return cls(PrintableConsole(force_terminal=attached(), force_interactive=attached()), Verbosity.asked())

    @property
    def verbose(self) -> bool:
        """Whether details are said."""
        return self.verbosity is Verbosity.VERBOSE

    @property
    def quiet(self) -> bool:
        """Whether only what went wrong is said."""
        return self.verbosity is Verbosity.QUIET

    def spelled(self, text: str) -> str:
        """As it can be written where there is only ASCII."""
        return text.translate(ASCII) if self.console.options.ascii_only else text

    def say(self, sentence: str) -> None:
        """What is good to know."""
        if not self.quiet:
            self.warn(sentence)

    def detail(self, sentence: str) -> None:
        """What only a close look needs."""
        if self.verbose:
            self.warn(sentence)

    def warn(self, sentence: str, style: str | None = None) -> None:
        """What must be read: a warning, a failure, the last line."""
        self.console.print(
            self.spelled(printable(sentence)), style=style, markup=False, highlight=False, soft_wrap=True
        )
