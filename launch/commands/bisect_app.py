"""`onward bisect`, as the command line has it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from launch.errors import EXIT_FAILED, failures_in_words
from workers.observing.terminal import verbosity


def bisect(
    one: Annotated[Path, typer.Argument(metavar="RUN_A", help="The folder of a run that 'onward train' wrote.")],
    other: Annotated[Path, typer.Argument(metavar="RUN_B", help="Another one, of the same stages.")],
    recompute: Annotated[
        bool, typer.Option("--recompute", help="Compute steps of both again, to name the very first that differs.")
    ] = False,
    trust: Annotated[
        bool, typer.Option("--trust", help="With --recompute: import and call what they name, though it is another's.")
    ] = False,
) -> None:
    """Find the first step and stage where two runs part, by what they have recorded, and what differs between them."""
    with failures_in_words():
        from launch.commands.bisect import bisect_runs
        from launch.results.printing import command_console

        found = bisect_runs(one, other, recompute, trust, command_console())
        verbosity.say(str(found), important=True)
        raise typer.Exit(EXIT_FAILED if found.parted else 0)
