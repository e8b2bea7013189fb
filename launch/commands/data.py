"""`onward data pack` and `onward data verify`, as the command line takes them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from launch.errors import failures_in_words
from pipeline.errors import UserError, allowed_names

data_app = typer.Typer(help="Copies of data sets that are faster to read.", no_args_is_help=True)


@data_app.command("pack")
def data_pack(
    source: Annotated[
        Path,
        typer.Argument(metavar="CONFIG_OR_FOLDER", help="A YAML file that names a data set, or a folder of classes."),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write; it must not exist.")],
    kind: Annotated[
        str, typer.Option("--format", metavar="jpeg|raw", help="Store JPEGs, or raw pixels (ten times as large).")
    ] = "jpeg",
    short_side: Annotated[int, typer.Option(min=8, help="Largest length of the shorter side, in pixels.")] = 256,
    quality: Annotated[int, typer.Option(min=1, max=100, help="JPEG quality.")] = 90,
    workers: Annotated[
        int | None, typer.Option(min=1, max=256, help="Number of threads; by default one per core.")
    ] = None,
    follow_links: Annotated[
        bool, typer.Option("--follow-links", help="Also pack files outside the data set that links in it lead to.")
    ] = False,
) -> None:
    """Copy a data set into a few large files, with smaller images. This changes the data: report it with results."""
    with failures_in_words():
        if kind not in ("jpeg", "raw"):
            raise UserError(
                f"--format: '{kind}' is no format of a packed data set. {allowed_names(kind, ('jpeg', 'raw'))}"
            )
        from launch.commands.pack import pack
        from launch.results.printing import command_console
        from pipeline.data.sets.packed import PackSettings

        settings = PackSettings(format="jpeg" if kind == "jpeg" else "raw", short_side=short_side, quality=quality)
        pack(source, out, settings, workers or os.cpu_count() or 1, command_console(), follow_links)


@data_app.command("verify")
def data_verify(folder: Annotated[Path, typer.Argument(metavar="OUT", help="What 'onward data pack' wrote.")]) -> None:
    """Compare every file of a packed data set with the digest it had when it was written."""
    with failures_in_words():
        from launch.commands.pack import verify_packed
        from launch.results.printing import command_console

        verify_packed(folder, command_console())
