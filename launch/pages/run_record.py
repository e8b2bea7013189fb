"""Reads what a report needs of a run directory, in whatever state; damaged files are left out with a note."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from launch.failure import read_failure
from launch.pages.series import RunSeries, read_series
from launch.prepare.provenance import read_starts
from launch.prepare.run_dir import read_config
from launch.results.run_state import RunOutcome, run_outcome
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.evaluation.document import EvaluationResults
from workers.observing.amounts import finite
from workers.observing.goodput import Goodput, Spent
from workers.observing.history_file import each_step, read_events
from workers.observing.observer import Event
from workers.observing.trace_part import Part, read_parts
from workers.run.files import RunDir, read_object


@dataclass
class RunRecord:
    """The contents of a run directory.

    Args:
        run: its directory.
        config: its configuration.
        outcome: its state.
        series: `metrics.jsonl`.
        events: alarms, restarts, snapshots, in order.
        report: `report.json`; empty where there is none.
        evaluation: `evaluation.json`; None where there is none.
        parts: of its trace.
        starts: of `provenance.json`, the first one first.
        spent: its wall time.
        notes: what is missing or damaged, one sentence each.
    """

    run: RunDir
    config: Config
    outcome: RunOutcome
    series: RunSeries
    events: list[Event] = field(default_factory=list)
    _: KW_ONLY
    report: dict[str, Any] = field(default_factory=dict)
    evaluation: EvaluationResults | None = None
    parts: list[Part] = field(default_factory=list)
    starts: list[dict[str, Any]] = field(default_factory=list)
    spent: Spent = field(default_factory=Spent)
    notes: list[str] = field(default_factory=list)


def read_run(path: Path) -> RunRecord:
    """Read the run in a directory.

    Raises:
        UserError: there is no run, no step of it has ended, or its metrics are damaged.
    """
    config = read_config(path)
    run = RunDir(path)
    outcome = run_outcome(run)
    if not run.metrics.is_file():
        why = "it has only begun: wait for its first step" if outcome.word == "running" else "no step of it has ended"
        raise UserError(f"'{path}' has no metrics.jsonl, so there is nothing to report ({why})")
    notes: list[str] = []
    goodput = Goodput.of(run)
    series = read_series(_adding_up(goodput, each_step(run.metrics, notes)))
    if not series.count:
        raise UserError(f"'{run.metrics}' has no step yet, so there is nothing to report. Wait for the first one")
    record = RunRecord(run, config, outcome, series, notes=[*notes, *_about(series)])
    record.report = _read_report(run, record.notes)
    record.starts = read_starts(run)
    record.events = _read_events(run, record.notes)
    for event in record.events:
        goodput.event(event)
    goodput.alive(finite((read_failure(run) or {}).get("time")) or 0.0)
    record.spent = goodput.spent
    record.evaluation = _read_evaluation(path, record.notes)
    record.parts, found = read_parts(run.trace)
    record.notes += found
    return record


def _adding_up(goodput: Goodput, lines: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for line in lines:
        goodput.written(line)
        yield line


def _about(series: RunSeries) -> list[str]:
    """Notes about what the figures leave out."""
    found = []
    if series.every > 1:
        found.append(
            f"of {series.count:,} steps, each figure shows one of {series.every}; images and times are those of all"
        )
    for stage in series.stages.values():
        at = stage.step[stage.lost > 0]
        if at.size:
            count, still = int(np.nanmax(stage.lost)), ", also at last" if stage.loses else ""
            near = "about" if series.every > 1 else "at"
            found.append(
                f"the loss of stage {stage.stage} was not finite in {count:,} of its steps, first {near} step "
                f"{at[0]:,.0f}{still}; figures leave those steps out"
            )
    return found


def _read_report(run: RunDir, notes: list[str]) -> dict[str, Any]:
    if not run.report.is_file():
        return {}
    try:
        found = read_object(run.report)
    except OSError:
        found = None
    if found is not None:
        return found
    notes.append("report.json is damaged and was left out")
    return {}


def _read_events(run: RunDir, notes: list[str]) -> list[Event]:
    try:
        events, found = read_events(run.events)
    except UserError as error:
        notes.append(f"events were left out: {error}")
        return []
    notes += found
    return events


def _read_evaluation(path: Path, notes: list[str]) -> EvaluationResults | None:
    file = path / "evaluation.json"
    if not file.is_file():
        return None
    try:
        return EvaluationResults.read(file)
    except UserError as error:
        notes.append(str(error))
        return None
