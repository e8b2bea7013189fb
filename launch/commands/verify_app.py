"""`onward verify`, as the command line has it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from launch.errors import EXIT_FAILED, failures_in_words
from workers.observing.terminal import verbosity


def verify(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run that 'onward train' wrote.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Override where and how it is computed here: device, data.root."),
    ] = None,
    first: Annotated[
        int | None,
        typer.Option("--from", metavar="STEPS", min=0, help="Begin with the snapshot after so many steps or fewer."),
    ] = None,
    last: Annotated[
        int | None, typer.Option("--to", metavar="STEPS", min=1, help="End when so many steps are done.")
    ] = None,
    stage: Annotated[int | None, typer.Option(metavar="K", min=1, help="Compare only this stage.")] = None,
    runtime: Annotated[
        Literal["serial", "pipelined"] | None,
        typer.Option(metavar="serial|pipelined", help="How to compute: in one process, unless a stage had replicas."),
    ] = None,
    close: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            min=0.0,
            help="On another machine: accept such a share in loss and norms of the first step.",
        ),
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Import and call what the configuration names, though it is another's.")
    ] = False,
) -> None:
    """Compute steps of a run again from a snapshot, and compare bits; by default of its last interval."""
    with failures_in_words():
        from launch.commands.verify import Question, verify_run
        from launch.results.printing import command_console

        question = Question(first, last, stage, runtime, close)
        found = verify_run(run, question, overrides or [], trust, command_console())
        verbosity.say(str(found), important=True)
        raise typer.Exit(0 if found.equal else EXIT_FAILED)
