"""The arguments of `onward runs` and `onward targets`; `runs.py` and `targets.py` do the work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from launch.errors import failures_in_words


def list_folder(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder that runs are in.")] = Path("runs"),
    sort: Annotated[
        str, typer.Option(metavar="COLUMN|MEASURE|KEY", help="Such as seconds, linear/quick or optimizer.lr.")
    ] = "begun",
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write every number and key as CSV.")] = None,
) -> None:
    """List the runs in a folder: state, length, speed, best accuracies, and in which keys they differ."""
    with failures_in_words():
        from launch.commands.runs import list_runs
        from launch.results.printing import command_console

        list_runs(folder, csv, sort, command_console())


def targets(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder that runs are in, such as runs.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What Prometheus reads, such as targets/runs.json.")],
    once: Annotated[bool, typer.Option("--once", help="Write the file and end.")] = False,
    every: Annotated[float, typer.Option(metavar="SECONDS", help="How often to look.")] = 5.0,
) -> None:
    """Tell Prometheus where runs serve their metrics: keep a file of targets (file_sd) up to date until stopped."""
    with failures_in_words():
        from launch.commands.targets import write_targets

        write_targets(folder, file, once, every)
