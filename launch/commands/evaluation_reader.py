"""Reads the evaluations that `onward evaluate` wrote, given as `RUN`, or `RUN@STEPS` for a snapshot.

The probes with which a run ends are an evaluation too: of the quick linear probe, in `report.json`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from launch.prepare.provenance import read_starts
from launch.prepare.run_dir import read_config
from launch.results.listed_run import QUICK
from launch.results.measure_names import clean
from pipeline.config import Config
from pipeline.config.places import FEATURES
from pipeline.errors import UserError
from pipeline.evaluation.document import DataInfo, EvaluationResults, Record
from workers.run.files import RunDir, read_report


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


def read_evaluations(names: Sequence[str], probes: bool = False) -> list[EvaluatedRun]:
    """The evaluations of `RUN` or `RUN@STEPS`.

    Args:
        names: of runs.
        probes: take the probes of `report.json` where the trained network was not evaluated otherwise, or without them.

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
        probed = _probed(path, config) if probes and steps is None else None
        runs.append(EvaluatedRun(name, path, config, _read(path, steps, probed)))
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


def _probed(path: Path, config: Config) -> EvaluationResults | None:
    """The probes of `report.json` as an evaluation; what that does not say is 0 or empty. None where there are none."""
    report, starts = read_report(RunDir(path)) or {}, read_starts(RunDir(path))
    rows = report.get("trained")
    records = [
        Record(config.data.name, block, feature, QUICK, "top1", value=float(row[feature]))
        for block, row in enumerate(rows if isinstance(rows, list) else (), 1)
        for feature in FEATURES
        if isinstance(row, dict) and isinstance(row.get(feature), float) and math.isfinite(row[feature])
    ]
    if not records:
        return None
    images = report.get("probe_images")
    known = {part: n for part, n in images.items() if isinstance(n, int)} if isinstance(images, dict) else {}
    versions = starts[-1].get("versions") if starts else None
    return EvaluationResults(
        run=str(path),
        checkpoint=None,
        config=config.evaluation.model_dump(mode="json"),
        run_config_digest="0" * 64,
        seed=config.evaluation.seed,
        versions=versions if isinstance(versions, dict) else {},
        data=DataInfo(config.data.name, known.get("train", 0), known.get("test", 0), 0),
        created="",
        results=records,
    )


def _with_probes(document: EvaluationResults, probed: EvaluationResults | None) -> EvaluationResults:
    """An evaluation that left out the quick probe, with that of the run's end."""
    if probed is None or any(record.measure == QUICK for record in document.results):
        return document
    return replace(document, results=[*document.results, *probed.results])


def _read(path: Path, steps: int | None, probed: EvaluationResults | None = None) -> EvaluationResults:
    """`evaluation.json` is the last evaluation, of the run or of a snapshot; those of snapshots are also kept apart."""
    command = evaluate_command(path, steps)
    file = path / ("evaluation.json" if steps is None else f"evaluation/step_{steps}.json")
    if not file.is_file():
        if probed is not None:
            return probed
        raise UserError(f"'{file}' does not exist: that was not evaluated. Run '{command}' first")
    document = EvaluationResults.read(file, path)
    evaluated = document.checkpoint
    if evaluated != steps and probed is not None:
        return probed
    if evaluated != steps:
        network = "the trained network" if evaluated is None else f"the snapshot after {evaluated} steps"
        raise UserError(
            f"'{file}' is of {network}. Run '{command}' again" + ("" if steps else f", or give {path}@{evaluated}")
        )
    return _with_probes(document, probed)
