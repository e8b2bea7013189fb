"""Reads the evaluations that `onward evaluate` wrote, given as `RUN`, or `RUN@STEPS` for a snapshot."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from launch.prepare.run_dir import read_config
from launch.results.measure_names import clean
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.evaluation.document import EvaluationResults


@dataclass(frozen=True)
class EvaluatedRun:
    """One evaluated network.

    Args:
        name: as it was given: `RUN`, or `RUN@STEPS` for a snapshot.
        path: of the run directory.
        config: that it was trained with.
        document: its evaluation.
    """

    name: str
    path: Path
    config: Config
    document: EvaluationResults


def read_evaluations(names: Sequence[str]) -> list[EvaluatedRun]:
    """The evaluations of `RUN` or `RUN@STEPS`.

    Raises:
        UserError: one is given twice, is no run, was not evaluated, or its evaluation is damaged or of other weights.
    """
    runs: list[EvaluatedRun] = []
    given: set[tuple[Path, int | None]] = set()
    for name in names:
        path, steps = split_name(name)
        config = read_config(path)
        if (path.resolve(), steps) in given:
            raise UserError(f"'{clean(name)}' is given twice. Give every run once")
        given.add((path.resolve(), steps))
        runs.append(EvaluatedRun(name, path, config, _read(path, steps)))
    return runs


def evaluate_command(path: Path, steps: int | None) -> str:
    """The command that measures a run, or with `steps` a snapshot of it."""
    return f"onward evaluate {path}" + ("" if steps is None else f" evaluation.checkpoint={steps}")


def split_name(name: str) -> tuple[Path, int | None]:
    """The run directory, and the steps of the snapshot; None for the trained network."""
    split = re.fullmatch(r"(.+)@(\d{1,18})", name, re.ASCII)
    if split is None or Path(name).is_dir():  # a folder may have such a name
        return Path(name), None
    return Path(split[1]), int(split[2])


def _read(path: Path, steps: int | None) -> EvaluationResults:
    """`evaluation.json` is the last evaluation, of the run or of a snapshot; those of snapshots are also kept apart."""
    command = evaluate_command(path, steps)
    file = path / ("evaluation.json" if steps is None else f"evaluation/step_{steps}.json")
    if not file.is_file():
        raise UserError(f"'{file}' does not exist: that was not evaluated. Run '{command}' first")
    document = EvaluationResults.read(file, path)
    evaluated = document.checkpoint
    if evaluated != steps:
        network = "the trained network" if evaluated is None else f"the snapshot after {evaluated} steps"
        raise UserError(
            f"'{file}' is of {network}. Run '{command}' again" + ("" if steps else f", or give {path}@{evaluated}")
        )
    return document
