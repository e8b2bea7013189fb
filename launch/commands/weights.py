"""The arguments of `onward export` and `onward convert`; `export.py` and `convert.py` do the work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from launch.errors import failures_in_words
from pipeline.errors import UserError
from workers.observing.terminal import verbosity


def export(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="The folder of a run; with --to also RUN@STEPS, a snapshot.")
    ],
    path: Annotated[
        Path | None, typer.Argument(metavar="PATH", help="The safetensors file to write; with --to the folder.")
    ] = None,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="FORMAT", help="Write a folder for torchvision, timm, hf or torch-export."),
    ] = None,
    block: Annotated[int | None, typer.Option(metavar="K", help="With --to: blocks 1 to K; all if not given.")] = None,
    trust: Annotated[
        bool,
        typer.Option("--trust", help="Import the network that the configuration names, although it is another user's."),
    ] = False,
) -> None:
    """Copy the trained backbone to one file under torchvision's names, or to a folder that another library loads."""
    with failures_in_words():
        if to is None:
            from launch.commands.export import export_backbone

            export_backbone(*_checked_for_file(run, path, block))
            verbosity.say(str(path), important=True)
        else:
            from launch.commands.export import export_to

            verbosity.say(export_to(run, to, path, block, trust), important=True)


def convert(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A safetensors file, a .pth of torch.save, RUN or RUN@STEPS.")
    ],
    to: Annotated[
        Path | None, typer.Argument(metavar="TO", help="Also copy the backbone here, under torchvision's names.")
    ] = None,
) -> None:
    """Show what weights are in a file, and whose names they have; a pickle is read by a process without rights."""
    with failures_in_words():
        from launch.commands.convert import convert_weights

        for note in convert_weights(file, to):
            verbosity.say(note, important=True)


def _checked_for_file(run: str, path: Path | None, block: int | None) -> tuple[Path, Path]:
    """The run and the file of `onward export` without --to; raises `UserError` if there is none, or a block."""
    if block is not None:
        raise UserError("--block is for a folder. Give --to torchvision, timm, hf or torch-export, too")
    if path is None:
        raise UserError("export needs a place. Give FILE.safetensors, or --to torchvision, timm, hf or torch-export")
    return Path(run), path
