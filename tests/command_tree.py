"""The commands of the command line, built once for all tests of a session: typer does it at every call, in 15 ms."""

from __future__ import annotations

import functools

import typer.main


def keep_built() -> None:
    """From now on, in this process and in those that it forks."""
    typer.main.get_command = functools.cache(typer.main.get_command)


def build() -> None:
    """That of `onward` now, before processes are forked."""
    from launch.cli import app

    typer.main.get_command(app)
