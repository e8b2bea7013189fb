"""Everything a report needs of a run directory, whatever state the run is in; what is damaged is said and left out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from launch.failure import read_failure
from launch.pages.series import RunSeries, read_series
from launch.prepare.run_dir import read_config
from launch.prepare.run_lock import is_running
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.evaluation.document import EvaluationResults
from workers.observing.history_file import each_step, read_events
from workers.observing.observer import Event
from workers.observing.trace_part import Part, read_parts
from workers.run.files import RunDir, read_object


@dataclass(frozen=True)
class Outcome:
    """How a run stands.

    Args:
        word: `running`, `done`, `interrupted`, `failed` or `stopped`.
        text: one sentence.
    """

    word: str
    text: str


@dataclass
class RunRecord:
    """A run as it was read.

    Args:
        run: where.
        config: that it was started with.
        outcome: how it stands.
        series: what its stages reported.
        events: alarms, restarts, snapshots, in order.
        report: `report.json`; empty where there is none.
        evaluation: the last one; None where there is none.
        parts: of the trace.
        notes: what is missing or damaged, a sentence each.
    """

    run: RunDir
    config: Config
    outcome: Outcome
    series: RunSeries
    events: list[Event] = field(default_factory=list)
    report: dict[str, Any] = field(default_factory=dict)
    evaluation: EvaluationResults | None = None
    parts: list[Part] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_run(path: Path) -> RunRecord:
    """The run in a directory.

    Raises:
        UserError: there is no run, no step of it has ended, or its metrics are damaged.
    """
    config = read_config(path)
    run = RunDir(path)
    outcome = _outcome(run)
    if not run.metrics.is_file():
        why = "it has only begun: wait for its first step" if outcome.word == "running" else "no step of it has ended"
        raise UserError(f"'{path}' has no metrics.jsonl, so there is nothing to report ({why})")
    notes: list[str] = []
    series = read_series(each_step(run.metrics, notes))
    if not series.count:
        raise UserError(f"'{run.metrics}' has no step yet, so there is nothing to report. Wait for the first one")
    record = RunRecord(run, config, outcome, series, notes=[*notes, *_about(series)])
    record.report = _read_report(run, record.notes)
    record.events = _read_events(run, record.notes)
    record.evaluation = _read_evaluation(path, record.notes)
    record.parts, found = read_parts(run.trace)
    record.notes += found
    return record


def _about(series: RunSeries) -> list[str]:
    """What the figures do not show."""
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


def _outcome(run: RunDir) -> Outcome:
    if is_running(run):
        return Outcome("running", "It is still running; this is how far it had come when this page was made.")
    if (failure := read_failure(run)) is not None:
        word = "interrupted" if failure.get("kind") == "interrupted" else "failed"
        return Outcome(word, str(failure.get("message") or "It did not say why."))
    if run.report.is_file():
        return Outcome("done", "It was trained to its end.")
    return Outcome("stopped", "It ended without a word: its processes were killed, or the machine stopped.")


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
