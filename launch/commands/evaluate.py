"""`onward evaluate RUN`: measure every block of a run, and write `evaluation.json`, tables and figures.

Also started by torchrun, `torchrun --nproc-per-node=N -m launch.evaluate RUN [key=value ...]`: then N processes share
the work of making features, each on the GPU of its local rank, and rank 0 does everything else.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from launch.errors import tell
from launch.prepare.data_index import check_data
from launch.prepare.placement import count_gpus, place
from launch.prepare.run_dir import read_config
from launch.tables.plots import write_plots
from launch.tables.table import print_document
from launch.tables.writing import write_csv, write_markdown
from pipeline.config import Config
from pipeline.errors import ConfigError, UserError
from pipeline.ordinary_files import make_folder
from pipeline.validation.loading import Reading, load_config
from workers.evaluating.ranks import Ranks
from workers.evaluating.run import FOLDER, Evaluated, evaluate
from workers.observing.terminal.console import Console, PrintableConsole
from workers.observing.terminal.drawing import ProgressLine
from workers.observing.terminal.summary import print_report
from workers.run.environment import leave_surroundings
from workers.run.files import RunDir, read_object, write_json
from workers.topology.torchrun import RunGroup, join_group, under_torchrun

FREE = ("device", "data.root", "data.on_error")
"""What an evaluation may change beside the section of its own."""
MEET_SECONDS = 300.0
"""How long the processes that torchrun started wait for each other."""


def evaluate_run(
    run_dir: Path, overrides: Sequence[str] = (), group: RunGroup | None = None, trusted: bool = False
) -> int:
    """Measure a run, write what was found into its directory, and print it; returns the exit code.

    Args:
        run_dir: what `onward train` wrote.
        overrides: `evaluation.KEY=VALUE`, `device=VALUE`, `data.on_error=VALUE`, and `data.root=FOLDER` where the
            data have moved, laid over the run's own configuration.
        group: the processes that torchrun started; None without it.
        trusted: functions that the configuration names may be called, whoever wrote it.

    Raises:
        ConfigError: an override that no evaluation takes.
        UserError: no run, no or damaged weights, or nothing that can be measured.
        TrainingError: another process says nothing.
    """
    trained_with = read_config(run_dir)
    run, config = RunDir(run_dir), evaluation_config(run_dir, overrides, trusted)
    console = Console(PrintableConsole(quiet=group is not None and group.rank > 0))
    with ProgressLine(console) as teller:
        ranks = None if group is None or group.world_size == 1 else Ranks(group)
        found = evaluate(config, trained_with, run, torch.device(_device(config, group)), teller, ranks)
    if found is not None:
        _write(config, run, found, console)
    return 0


def evaluation_config(run_dir: Path, overrides: Sequence[str], trusted: bool = False) -> Config:
    """The configuration of a run with the evaluation's settings laid over it.

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
    # An evaluation has no feed, and what the run's own cannot do is no matter here.
    more = ["data.feed=coordinator"] if "data.on_error" in keys else []
    config = load_config(RunDir(run_dir).config, [*overrides, *more], Reading(trusted=trusted, run=run_dir))
    if "data.root" in keys:
        check_data(config, RunDir(run_dir))
    return config


def _device(config: Config, group: RunGroup | None) -> str:
    """That of the first stage; of several processes each has the GPU of its local rank."""
    gpus = count_gpus()
    device = place(config, gpus)[0].device
    if group is None or device == "cpu" or config.device not in ("auto", "cuda"):
        return device
    return f"cuda:{group.local_rank % gpus}"


def _write(config: Config, run: RunDir, found: Evaluated, console: Console) -> None:
    document = found.document
    folder = run.path / FOLDER
    try:
        write_json(run.path / f"{FOLDER}.json", document.to_json())
        make_folder(folder, run.path)
        if document.checkpoint is not None:  # the next evaluation takes the place of the one above
            write_json(folder / f"step_{document.checkpoint}.json", document.to_json(), run.path)
        write_csv(document, folder / "results.csv")
        write_markdown(document, folder / "results.md")
        if config.evaluation.plots:
            write_plots(document, folder)
        _update_report(run, found.table, console)
    except OSError as error:
        where = error.filename or run.path
        raise UserError(
            f"'{where}' cannot be written ({error.strerror or error}). Make room, or make it writable"
        ) from None
    print_document(console.out, document)
    console.warn(f"tables and figures are in {folder}, every number is in {folder}.json")


def _update_report(run: RunDir, table: dict[str, Any] | None, console: Console) -> None:
    """Put the probe table into the report that the run ended with."""
    if table is None:
        return
    try:
        before = read_object(run.report)
    except OSError as error:
        console.warn(f"'{run.report}' stays as it is: it cannot be read ({error.strerror})")
        return
    if before is None:
        console.warn(f"'{run.report}' stays as it is: it cannot be read (it is no report)")
        return
    report = before | table
    write_json(run.report, report)
    print_report(console, run, report)


def main(arguments: list[str] | None = None) -> int:
    """What torchrun starts on every rank; returns its exit code."""
    leave_surroundings()
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        trusted, arguments = "--trust" in arguments, [each for each in arguments if each != "--trust"]
        if not arguments or arguments[0].startswith("-"):
            raise UserError(
                "usage: torchrun --nproc-per-node=PROCESSES -m launch.evaluate [--trust] RUN [evaluation.KEY=VALUE ...]"
            )
        group = join_group(MEET_SECONDS) if under_torchrun() else None
        return evaluate_run(Path(arguments[0]), arguments[1:], group, trusted)
    except (Exception, KeyboardInterrupt) as error:
        return tell(error)
