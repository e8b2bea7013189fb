"""The arguments of `onward bench method`; `bench.py` does the work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from launch.errors import failures_in_words
from launch.prepare.presets import configuration_file

bench_app = typer.Typer(help="Benchmarks.", no_args_is_help=True)


@bench_app.command("method")
def bench_method(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="CONFIG|KEY=VALUE", help="What to train, by default the preset quickstart."),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each method, which differ in their seed.")] = 3,
    to: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the runs and the table are written.")] = Path(
        "runs/bench-method"
    ),
) -> None:
    """Compare training methods on one budget: end to end, simultaneous, sequential, supervised, untrained."""
    with failures_in_words():
        overrides = arguments or []
        given = "quickstart"
        if overrides and "=" not in overrides[0]:
            given, *overrides = overrides
        config = configuration_file(given)
        from launch.commands.bench import bench_method as compare_methods
        from launch.results.printing import command_console

        compare_methods(config, overrides, seeds, to, command_console())
