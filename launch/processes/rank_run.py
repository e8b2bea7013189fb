"""The run of a rank of torchrun or srun, or of a serial process: handed over by the command line, or prepared here."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from launch.plan.fitting import fit
from launch.prepare.link_kind import with_shared_run_dir
from launch.prepare.prepared_run import PreparedRun, handed_over, prepare_run
from launch.prepare.presets import configuration_file
from launch.prepare.ranks import check_alone, check_processes
from launch.processes.slurm import run_name
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.validation.loading import load_for_start
from workers.run.environment import launch_command
from workers.topology.torchrun import RunGroup

FORCE = "--force"
"""As of `onward train`."""


@contextmanager
def rank_run(
    arguments: list[str], group: RunGroup | None = None, shared: bool = True, hosts: Sequence[str] = ()
) -> Iterator[PreparedRun]:
    """The run that the command line has prepared; otherwise check and prepare it here.

    A context manager, at whose end this process lets go of the run, if it was not the command line that claimed it.

    Args:
        arguments: of the command line.
        group: the processes that torchrun or srun started; None without them.
        shared: on several hosts: all see the run directory.
        hosts: on several: their names.

    Raises:
        UserError: the processes that were started do not fit the run; or as `prepare_run`.
    """
    if (prepared := handed_over()) is not None:
        yield prepared
        return
    force = FORCE in arguments
    arguments = [argument for argument in arguments if argument != FORCE]
    config, notes = own_config(arguments)
    if group is not None:
        check_processes(config, group, arguments)
    else:
        check_alone(config)
    on_one_host = group is None or group.on_one_host
    if not on_one_host:
        config = with_shared_run_dir(config, shared)
    fitting = partial(fit, force=force, several_hosts=not on_one_host)
    with prepare_run(config, Path(arguments[0]).stem, fitting, notes, on_one_host, hosts) as prepared:
        yield prepared


def own_config(arguments: list[str]) -> tuple[Config, list[str]]:
    """What this process was given on its own command line, and where a task of srun runs; see `load_for_start`."""
    arguments = [argument for argument in arguments if argument != FORCE]
    if not arguments or arguments[0].startswith("-"):
        raise UserError(
            f"usage: {launch_command('launch.train', 'PROCESSES')} [-q|-v] [--force] CONFIG [key=value ...]"
        )
    config, notes = load_for_start(configuration_file(arguments[0]), arguments[1:])
    name = run_name(Path(arguments[0]).stem, os.environ)
    if config.run_dir is None and name is not None:
        config = config.model_copy(update={"run_dir": f"runs/{name}"})
    return config, notes
