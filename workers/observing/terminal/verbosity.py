"""How much a run says to its user.

It is no part of the configuration, because no two runs differ by it: `onward train -q` and `-v` leave it in the
environment, which all processes of the run inherit.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from enum import Enum

from pipeline.errors import UserError, printable

VARIABLE = "ONWARD_VERBOSITY"


class Verbosity(Enum):
    """How much a run says."""

    QUIET = "quiet"
    """What went wrong, and where the results are."""
    NORMAL = "normal"
    VERBOSE = "verbose"
    """Also every step, where every process runs, the links, and every snapshot."""

    @classmethod
    def asked(cls) -> Verbosity:
        """What the environment asks for; `NORMAL` if it says nothing, or something else."""
        return next((one for one in cls if one.value == os.environ.get(VARIABLE)), cls.NORMAL)


def ask(quiet: bool, verbose: bool) -> None:
    """From here on, and in every process that this one starts; nothing changes if neither is asked for.

    Raises:
        UserError: both are.
    """
    if quiet and verbose:
        raise UserError("--quiet and --verbose: a run cannot be both. Give one of them")
    if quiet or verbose:
        os.environ[VARIABLE] = (Verbosity.QUIET if quiet else Verbosity.VERBOSE).value


def take_flags(arguments: Sequence[str]) -> list[str]:
    """The arguments of a command line without `-q` and `-v`, which are obeyed; raises as `ask`."""
    quiet, verbose = ({"-q", "--quiet"}, {"-v", "--verbose"})
    ask(not quiet.isdisjoint(arguments), not verbose.isdisjoint(arguments))
    return [argument for argument in arguments if argument not in quiet | verbose]


def say(sentence: str, important: bool = False) -> None:
    """Print what is good to know, or `important`, from a process that has no terminal of the run."""
    if important or Verbosity.asked() is not Verbosity.QUIET:
        _print(sentence)


def detail(sentence: str) -> None:
    """Print what only a close look needs, as `say`."""
    if Verbosity.asked() is Verbosity.VERBOSE:
        _print(sentence)


def _print(sentence: str) -> None:
    """In one piece: torchrun's processes share the output, and without a buffer `print` writes the end by itself."""
    sys.stdout.write(f"{printable(sentence)}\n")
    sys.stdout.flush()


def attached() -> bool:
    """Whether the standard output is a terminal on which lines can move."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("", "dumb", "unknown")


def recover() -> None:
    """After a process was killed that drew on the terminal: show the cursor, and begin a new line."""
    if attached() and Verbosity.asked() is not Verbosity.QUIET:
        sys.stdout.write("\x1b[?25h\n")
        sys.stdout.flush()
