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
        out: where to; one that is interactive may be drawn on.
        verbosity: which of them.
    """

    def __init__(self, out: RichConsole, verbosity: Verbosity = Verbosity.NORMAL) -> None:
        self.out, self.verbosity = out, verbosity

    @classmethod
    def of_process(cls) -> Console:
        """On the standard output. Nothing but text goes into a file, a pipe or a dumb terminal, whatever is set."""
        survive_lost_output()
        return cls(PrintableConsole(force_terminal=attached(), force_interactive=attached()), Verbosity.asked())

    @property
    def verbose(self) -> bool:
        """Whether details are shown."""
        return self.verbosity is Verbosity.VERBOSE

    @property
    def quiet(self) -> bool:
        """Whether only what went wrong is shown."""
        return self.verbosity is Verbosity.QUIET

    def spelled(self, text: str) -> str:
        """As it can be written where there is only ASCII."""
        return text.translate(ASCII) if self.out.options.ascii_only else text

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
        self.out.print(self.spelled(printable(sentence)), style=style, markup=False, highlight=False, soft_wrap=True)

    def show(self, table: RenderableType) -> None:
        """A table, unless only what went wrong is shown."""
        if not self.quiet:
            self.out.print(table)
