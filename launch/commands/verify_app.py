"""`onward verify`, as the command line has it."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from launch.commands.arguments import FromSteps, OverridesHere, RunFolder, TrustRun
from launch.errors import EXIT_FAILED, failures_in_words
from workers.observing.terminal import verbosity


def verify(
    run: RunFolder,
    overrides: OverridesHere = None,
    first: FromSteps = None,
    last: Annotated[
        int | None, typer.Option("--to", metavar="STEPS", min=1, help="End when so many steps are done.")
    ] = None,
    whole: Annotated[
        bool, typer.Option("--all", help="Compute all, from the beginning to the last step that can be compared.")
    ] = False,
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
    trust: TrustRun = False,
) -> None:
    """Compute steps of a run again from a snapshot, and compare bits; by default of its last interval."""
    with failures_in_words():
        from launch.commands.verify import Question, verify_run
        from launch.results.printing import command_console

        question = Question(first, last, stage, runtime, close, whole=whole)
        found = verify_run(run, question, overrides or [], trust, command_console())
        verbosity.say(str(found), important=True)
        raise typer.Exit(0 if found.equal else EXIT_FAILED)
