"""The one way to speak to the user: sentences, tables, and lines that move in place.

a run, an evaluation, a command     Console: sentences by verbosity, tables; `ProgressLine` for how far it is
a process that has no console       `verbosity.say`, `detail`: one sentence, without loading rich
"""

from __future__ import annotations

from typing import Any

from rich.console import Console as RichConsole
from rich.console import RenderableType

from pipeline.errors import printable
from workers.observing.terminal.safe_stream import survive_lost_output
from workers.observing.terminal.verbosity import Verbosity, attached

ASCII = str.maketrans({"→": "->", "·": "-"})


class PrintableConsole(RichConsole):
    """A console of rich that writes text as `printable` spells it; rich itself would pass escape sequences on."""

    def print(self, *objects: Any, **how: Any) -> None:
        """See `Console.print`."""
        super().print(*(printable(each) if isinstance(each, str) else each for each in objects), **how)


class Console:
    """Sentences and tables for the user.

    Args:
        out: rich's console; if it is interactive, lines may be redrawn on it.
        verbosity: which messages are printed.
    """

    def __init__(self, out: RichConsole, verbosity: Verbosity = Verbosity.NORMAL) -> None:
        self.out, self.verbosity = out, verbosity

    @classmethod
    def of_process(cls) -> Console:
        """A console on the standard output; a file, a pipe or a dumb terminal gets plain text despite `FORCE_COLOR`."""
        survive_lost_output()
        return cls(PrintableConsole(force_terminal=attached(), force_interactive=attached()), Verbosity.asked())

    @property
    def verbose(self) -> bool:
        """Whether details are printed."""
        return self.verbosity is Verbosity.VERBOSE

    @property
    def quiet(self) -> bool:
        """Whether only problems and the location of the results are printed."""
        return self.verbosity is Verbosity.QUIET

    def spelled(self, text: str) -> str:
        """`text` in ASCII if the output has only that."""
        return text.translate(ASCII) if self.out.options.ascii_only else text

    def say(self, sentence: str) -> None:
        """Print an informational message."""
        if not self.quiet:
            self.warn(sentence)

    def detail(self, sentence: str) -> None:
        """Print a detail (`-v`)."""
        if self.verbose:
            self.warn(sentence)

    def warn(self, sentence: str, style: str | None = None) -> None:
        """Print what the user must read: a warning, a failure, the last line."""
        self.out.print(self.spelled(printable(sentence)), style=style, markup=False, highlight=False, soft_wrap=True)

    def show(self, table: RenderableType) -> None:
        """Print a table, unless the console is quiet."""
        if not self.quiet:
            self.out.print(table)
