"""`onward data pack` and `onward data verify`, as the command line takes them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from launch.errors import failures_in_words
from pipeline.errors import UserError, allowed_names

data_app = typer.Typer(help="Copies of data sets that are quicker to read.", no_args_is_help=True)


@data_app.command("pack")
def data_pack(
    source: Annotated[
        Path, typer.Argument(metavar="CONFIG_OR_FOLDER", help="Whose data set: a YAML file's, or a folder of classes.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write; it must not exist.")],
    kind: Annotated[
        str, typer.Option("--format", metavar="jpeg|raw", help="JPEGs again, or pixels, ten times as large.")
    ] = "jpeg",
    short_side: Annotated[int, typer.Option(min=8, help="Longest that the shorter side may be, in pixels.")] = 256,
    quality: Annotated[int, typer.Option(min=1, max=100, help="Of the JPEGs.")] = 90,
    workers: Annotated[int | None, typer.Option(min=1, max=256, help="Threads; one a core if not given.")] = None,
    follow_links: Annotated[
        bool, typer.Option("--follow-links", help="Also pack what links lead to outside of the data set.")
    ] = False,
) -> None:
    """Copy a data set with smaller images into a few large files. This changes the data: report it with results."""
    with failures_in_words():
        if kind not in ("jpeg", "raw"):
            raise UserError(
                f"--format: '{kind}' is no format of a packed data set. {allowed_names(kind, ('jpeg', 'raw'))}"
            )
        from launch.commands.pack import pack
        from pipeline.data.sets.packed import Settings
        from workers.observing.terminal.console import PrintableConsole

        settings = Settings(format="jpeg" if kind == "jpeg" else "raw", short_side=short_side, quality=quality)
        pack(source, out, settings, workers or os.cpu_count() or 1, PrintableConsole(), follow_links)


@data_app.command("verify")
def data_verify(folder: Annotated[Path, typer.Argument(metavar="OUT", help="What 'onward data pack' wrote.")]) -> None:
    """Compare every file of a packed data set with the digest it had when it was written."""
    with failures_in_words():
        from launch.commands.pack import verify_packed
        from workers.observing.terminal.console import PrintableConsole

        verify_packed(folder, PrintableConsole())
