"""The run that a rank of torchrun, or the one process of a serial run, is to train: prepared for it, or by itself."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

from launch.prepare.preflight import preflight
from launch.prepare.ranks import check_alone, check_processes
from launch.prepare.resume import Opened, open_run
from launch.prepare.run_dir import claim_run, read_config
from launch.processes.local import START_STEP
from launch.processes.measuring import measure_in_a_process
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.validation.loading import load_for_start
from workers.observing.terminal.verbosity import say
from workers.run.environment import PREPARED
from workers.run.files import RunDir
from workers.topology.torchrun import RunGroup

RELEASE_SECONDS = 10.0
"""How long a coordinator may outlive the process that started it."""


class NothingToDo(Exception):
    """The run has been trained to its end.

    Args:
        opened: where, and whether it has been measured.
    """

    def __init__(self, opened: Opened) -> None:
        super().__init__()
        self._opened = opened

    def measured(self) -> int:
        """Measure it if that was not done; returns the exit code."""
        path = self._opened.path
        return measure_in_a_process(read_config(path), RunDir(path)) if self._opened.unmeasured else 0


def prepared_run(
    arguments: list[str], stack: ExitStack, group: RunGroup | None = None
) -> tuple[Config, RunDir, int, tuple[int, ...]]:
    """The run that the command line has prepared, its first step, and its lock; otherwise check and prepare it here.

    Args:
        arguments: of the command line.
        stack: at whose end this process lets go of the run, if it was not the command line that took it.
        group: the processes that torchrun started; None without torchrun.

    Raises:
        NothingToDo: it has been trained.
    """
    if PREPARED in os.environ:
        run = Path(os.environ[PREPARED])
        return read_config(run), RunDir(run), int(os.environ.get(START_STEP, "0")), ()
    config, notes = own_config(arguments)
    if group is not None:
        check_processes(config, group)
    else:
        check_alone(config)
    # A coordinator that torchrun could not reach may still be ending.
    again = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    claimed = stack.enter_context(claim_run(config, Path(arguments[0]).stem, RELEASE_SECONDS if again else 0.0))
    found = preflight(config, claimed.run.path)
    opened = open_run(config, claimed.run.path)
    for note in (*notes, *claimed.notes, *found.notes, *opened.notes):
        say(note, important=opened.finished)
    if opened.finished:
        raise NothingToDo(opened)
    claimed.keep()
    return read_config(opened.path), RunDir(opened.path), opened.steps, claimed.held


def own_config(arguments: list[str]) -> tuple[Config, list[str]]:
    """What this process was told on its own command line; see `load_for_start`."""
    if not arguments or arguments[0].startswith("-"):
        raise UserError("usage: torchrun --nproc-per-node=PROCESSES -m launch.train [-q|-v] CONFIG [key=value ...]")
    return load_for_start(arguments[0], arguments[1:])
