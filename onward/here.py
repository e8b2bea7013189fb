"""Training, resuming and evaluating in this process, as its only task: what the command line does.

`onward.train` and the others start `onward.command_process`, which calls the same functions. They print, set the
signals and the environment of the process, and return exit codes; a program that goes on afterwards takes the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from launch.plan.fitting import fit
from launch.prepare.prepared_run import PreparedRun, prepare_run
from launch.prepare.resume import check_resumable
from launch.prepare.run_dir import check_own, read_config
from launch.processes.measuring import finish
from pipeline.config import Config
from pipeline.validation.loading import LoadOptions, load_config
from workers.observing.terminal import safe_stream
from workers.run.files import RunDir

Prepared = Callable[[PreparedRun], object]
"""Called once everything is checked and the run directory is written, before the first process of the run starts."""


def train(
    config: Config,
    name: str,
    notes: Sequence[str] = (),
    force: bool = False,
    prepared: Prepared = lambda run: None,
) -> int:
    """Train a run to its end, or go on with the one in its `run_dir`; returns the exit code, after printing why.

    Args:
        config: of the run.
        name: of the configuration; names the run directory where none is given.
        notes: sentences for the user.
        force: start it although it needs more memory than its devices have.
        prepared: see `Prepared`.

    Raises:
        ConfigError, UserError: as `prepare_run`.
        TrainingError: the run was trained and cannot be measured.
    """
    safe_stream.expect_no_reader()
    with prepare_run(config, name, partial(fit, force=force), notes) as run:
        prepared(run)
        if run.finished:
            return finish(run)
        from launch.processes.local import run_training

        return run_training(run)


def resume(
    run: Path,
    overrides: Sequence[str] = (),
    trusted: bool = False,
    force: bool = False,
    prepared: Prepared = lambda run: None,
) -> int:
    """Go on with a run from its newest snapshot; returns the exit code.

    Args:
        run: its directory.
        overrides: `KEY=VALUE`, of what leaves the numbers alone.
        trusted: import and call what its configuration names, although it is another user's file.
        force, prepared: as `train`.

    Raises:
        ConfigError, UserError: there is no run, it cannot go on, or as `train`.
    """
    check_resumable(run)
    check_own(run)  # again once the run is claimed: another process may have it now
    config = load_config(RunDir(run).config, overrides, LoadOptions(trusted=trusted, trackers=True, run=run))
    return train(config.model_copy(update={"run_dir": str(run)}), run.name, (), force, prepared)


def evaluate(run: Path, overrides: Sequence[str] = (), trusted: bool = False) -> int:
    """Measure every block of a run and print the tables; returns the exit code.

    Arguments as `resume`; the overrides are `evaluation.KEY`, `device`, `data.root` and `data.on_error`.

    Raises:
        ConfigError, UserError: there is no run, no weights, or nothing that can be measured.
    """
    read_config(run)
    from launch.commands.evaluate import evaluate_run

    return evaluate_run(run, overrides, trusted=trusted)
