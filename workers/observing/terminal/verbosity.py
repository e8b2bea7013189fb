"""How much a run prints (`-q`, `-v`), and printing without loading rich.

It is not part of the configuration, because it does not distinguish runs: `onward train -q` and `-v` set an environment
variable, which all processes of the run inherit.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from enum import Enum

from pipeline.errors import UserError, printable

VARIABLE = "ONWARD_VERBOSITY"


class Verbosity(Enum):
    """How much a run prints."""

    QUIET = "quiet"
    """Problems, and where the results are."""
    NORMAL = "normal"
    VERBOSE = "verbose"
    """Also every step, where every process runs, the links, and every snapshot."""

    @classmethod
    def asked(cls) -> Verbosity:
        """The value of the environment variable; `NORMAL` if it is missing or unknown."""
        return next((one for one in cls if one.value == os.environ.get(VARIABLE)), cls.NORMAL)


def ask(quiet: bool, verbose: bool) -> None:
    """Set the verbosity of this process and of those that it starts; no change if neither flag is given.

    Raises:
        UserError: both flags are given.
    """
    if quiet and verbose:
        raise UserError("--quiet and --verbose: a run cannot be both. Give one of them")
    if quiet or verbose:
        os.environ[VARIABLE] = (Verbosity.QUIET if quiet else Verbosity.VERBOSE).value


def take_flags(arguments: Sequence[str]) -> list[str]:
    """Apply `-q` and `-v`, and return the other arguments; raises as `ask`."""
    quiet, verbose = ({"-q", "--quiet"}, {"-v", "--verbose"})
    ask(not quiet.isdisjoint(arguments), not verbose.isdisjoint(arguments))
    return [argument for argument in arguments if argument not in quiet | verbose]


def say(sentence: str, important: bool = False) -> None:
    """Print an informational or `important` message from a process without a console."""
    if important or Verbosity.asked() is not Verbosity.QUIET:
        _print(sentence)


def detail(sentence: str) -> None:
    """Print a detail (`-v`), as `say`."""
    if Verbosity.asked() is Verbosity.VERBOSE:
        _print(sentence)


def _print(sentence: str) -> None:
    """Write in one piece: torchrun's processes share the output, and unbuffered `print` writes the newline alone."""
    sys.stdout.write(f"{printable(sentence)}\n")
    sys.stdout.flush()


def attached() -> bool:
    """Whether the standard output is a terminal on which lines can be redrawn; the cell of a notebook is none."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("", "dumb", "unknown") and not in_notebook()


def in_notebook() -> bool:
    """Whether a notebook has started this process, as `!onward train` in a cell does.

    Its kernel gives the command a pseudo-terminal, and keeps all that is written to it. `jupyter_client` sets
    JPY_PARENT_PID for the kernel, which hands it on; where an editor starts the kernel itself, ipykernel's backend for
    matplotlib tells. A terminal that JupyterLab opens has neither.
    """
    backend = os.environ.get("MPLBACKEND", "")
    return "JPY_PARENT_PID" in os.environ or backend.startswith(("module://matplotlib_inline", "module://ipykernel"))


def recover() -> None:
    """Show the cursor and start a new line, after a process was killed that drew on the terminal."""
    if attached() and Verbosity.asked() is not Verbosity.QUIET:
        sys.stdout.write("\x1b[?25h\n")
        sys.stdout.flush()
