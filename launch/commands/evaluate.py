"""`onward evaluate RUN`: measure every block of a run, and write `evaluation.json`, tables and figures.

torchrun starts it too, `torchrun --nproc-per-node=N -m launch.evaluate RUN [key=value ...]`: then N processes share the
work of making features, each on the GPU of its local rank, and rank 0 does everything else.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from launch.errors import report_error
from launch.prepare.data_index import check_data
from launch.prepare.placement import count_gpus, place
from launch.prepare.run_dir import read_config
from launch.processes.slurm import take_ranks_of_srun
from launch.results.evaluation_plots import write_plots
from launch.results.evaluation_tables import print_document
from launch.results.printing import command_console, print_lines
from launch.results.result_files import write_csv, write_markdown
from pipeline.config import Config
from pipeline.data.sets.datasets import Splits
from pipeline.errors import ConfigError, UserError
from pipeline.ordinary_files import make_folder
from pipeline.validation.loading import LoadOptions, load_config
from workers.evaluating.evaluation import FOLDER, Evaluated, evaluate
from workers.evaluating.ranks import Ranks
from workers.observing.terminal.console import Console
from workers.observing.terminal.drawing import ProgressLine
from workers.observing.terminal.summary import print_report
from workers.run.environment import clean_environment, launch_command
from workers.run.files import RunDir, read_object, write_json
from workers.topology.joining import join_group, under_torchrun
from workers.topology.torchrun import RunGroup

FREE = ("device", "data.root", "data.on_error")
"""Keys that an evaluation may override beside its own section."""
MEET_SECONDS = 300.0
"""How long the processes that torchrun started wait for each other."""


def evaluate_run(
    run_dir: Path,
    overrides: Sequence[str] = (),
    group: RunGroup | None = None,
    trusted: bool = False,
    console: Console | None = None,
) -> int:
    """Measure a run, write the results into its directory, and print them; returns the exit code.

    Args:
        run_dir: what `onward train` wrote.
        overrides: of the run's own configuration: `evaluation.KEY=VALUE`, `device=VALUE`, `data.on_error=VALUE`, and
            `data.root=FOLDER` where the data have moved.
        group: the processes that torchrun started; None without it.
        console: for the results, by default on the standard output.
        trusted: functions that the configuration names may be called, although it is another user's file.

    Raises:
        ConfigError: an override that an evaluation does not accept.
        UserError: no run, no or damaged weights, or nothing that can be measured.
        TrainingError: another process does not answer.
    """
    trained_with = read_config(run_dir)
    run, config = RunDir(run_dir), evaluation_config(run_dir, overrides, trusted)
    console = console or command_console(quiet=group is not None and group.rank > 0)
    with ProgressLine(console) as progress:
        ranks = None if group is None or group.world_size == 1 else Ranks(group)
        evaluated = evaluate(config, trained_with, run, torch.device(_device(config, group)), progress, ranks)
    if evaluated is not None:
        _write(config, run, evaluated, console)
    return 0


def evaluation_config(run_dir: Path, overrides: Sequence[str], trusted: bool = False) -> Config:
    """The configuration of a run with the evaluation's overrides.

    Raises:
        UserError: the network must be built, and the configuration is not to be trusted with that.
        ConfigError: an override of something that was decided when the run was trained, or a value that is wrong.
    """
    keys = [override.partition("=")[0].strip() for override in overrides if "=" in override]
    for key in keys:
        if key not in FREE and not key.startswith("evaluation."):
            problem = "cannot be changed for an evaluation: the run was trained with what its config.yaml says"
            remedy = "Give evaluation.KEY=VALUE, device=VALUE, data.root=FOLDER of moved data, or data.on_error=skip"
            raise ConfigError(key, problem, remedy)
    # An evaluation has no feed, so that `data.on_error` need not fit where the feed of the run is.
    more = ["data.feed=coordinator"] if "data.on_error" in keys else []
    config = load_config(RunDir(run_dir).config, [*overrides, *more], LoadOptions(trusted=trusted, run=run_dir))
    if "data.root" in keys:
        check_data(Splits(config.data), RunDir(run_dir))
    return config


def _device(config: Config, group: RunGroup | None) -> str:
    """The device of the first stage; where there are several processes, each has the GPU of its local rank."""
    gpus = count_gpus()
    device = place(config, gpus)[0].device
    if group is None or device == "cpu" or config.device not in ("auto", "cuda"):
        return device
    return f"cuda:{group.local_rank % gpus}"


def _write(config: Config, run: RunDir, evaluated: Evaluated, console: Console) -> None:
    document = evaluated.document
    folder = run.path / FOLDER
    try:
        write_json(run.path / f"{FOLDER}.json", document.to_json())
        make_folder(folder, run.path)
        if document.checkpoint is not None:  # the next evaluation overwrites the one above
            write_json(folder / f"step_{document.checkpoint}.json", document.to_json(), run.path)
        write_csv(document, folder / "results.csv")
        write_markdown(document, folder / "results.md")
        if config.evaluation.plots:
            write_plots(document, folder)
        _update_report(run, evaluated.table, console)
    except OSError as error:
        path = error.filename or run.path
        raise UserError(
            f"'{path}' cannot be written ({error.strerror or error}). Make room, or make it writable"
        ) from None
    print_document(console, document)
    print_lines(console, f"tables and figures are in {folder}, every number is in {folder}.json")


def _update_report(run: RunDir, table: dict[str, Any] | None, console: Console) -> None:
    """Put the probe table into the report that the run ended with."""
    if table is None:
        return
    try:
        before = read_object(run.report)
    except OSError as error:
        print_lines(console, f"'{run.report}' stays as it is: it cannot be read ({error.strerror})")
        return
    if before is None:
        print_lines(console, f"'{run.report}' stays as it is: it cannot be read (it is no report)")
        return
    report = before | table
    write_json(run.report, report)
    print_report(console, run, report)


def main(arguments: list[str] | None = None) -> int:
    """Evaluate as one of the ranks that torchrun started; returns its exit code."""
    clean_environment()
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        trusted, arguments = "--trust" in arguments, [argument for argument in arguments if argument != "--trust"]
        if not arguments or arguments[0].startswith("-"):
            raise UserError(
                f"usage: {launch_command('launch.evaluate', 'PROCESSES')} [--trust] RUN [evaluation.KEY=VALUE ...]"
            )
        take_ranks_of_srun()
        group = join_group(MEET_SECONDS) if under_torchrun() else None
        return evaluate_run(Path(arguments[0]), arguments[1:], group, trusted)
    except (Exception, KeyboardInterrupt) as error:
        return report_error(error)
