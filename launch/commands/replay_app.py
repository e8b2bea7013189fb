"""`onward replay`, as the command line has it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from launch.commands.arguments import FromSteps, OverridesHere, RunFolder, TrustRun
from launch.errors import EXIT_FAILED, failures_in_words
from workers.observing.terminal import verbosity


def replay(
    run: RunFolder,
    stage: Annotated[int, typer.Option(metavar="K", min=1, help="The stage, counted from 1.")],
    step: Annotated[int, typer.Option(metavar="N", min=0, help="The step, counted from 0, as messages name it.")],
    overrides: OverridesHere = None,
    dump: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write tensors, numbers and pictures of the images there.")
    ] = None,
    images: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Write so many pictures, those that matter most; 32.")
    ] = None,
    first: FromSteps = None,
    trust: TrustRun = False,
) -> None:
    """Compute one step of one stage again: loss, norms, images, and the first module that gave no finite number."""
    with failures_in_words():
        from launch.commands.replay import replay_run
        from launch.results.printing import command_console

        found = replay_run(
            run,
            stage,
            step,
            first=first,
            dump=dump,
            images=images,
            overrides=overrides or [],
            trusted=trust,
            console=command_console(),
        )
        verbosity.say(str(found), important=True)
        raise typer.Exit(EXIT_FAILED if found.equal is False and not found.found.notes else 0)
