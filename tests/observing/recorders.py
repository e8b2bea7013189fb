"""A recorder without a run around it, the reports that it takes, and an observer that remembers what it was told."""

from __future__ import annotations

from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console as RichConsole

from launch.prepare.link_kind import with_link
from tests.pipeline.small import small_config
from workers.control.step_report import StepReport
from workers.coordinator.recorder import Recorder
from workers.observing.active_alarms import ActiveAlarms
from workers.observing.goodput import AttemptStart, Goodput
from workers.observing.headroom_watch import HeadroomWatch
from workers.observing.history_file import each_step
from workers.observing.metrics import RunMetrics
from workers.observing.observer import Event, Observers, RunFacts
from workers.observing.terminal.console import Console
from workers.observing.terminal.progress import Progress


def facts(path: Path, steps: int = 6, **sections: Any) -> RunFacts:
    """Of a run of four stages."""
    config = with_link(small_config(**sections), on_one_host=True).model_dump(mode="json")
    return RunFacts(
        name=path.name,
        path=path,
        config=config,
        stages=4,
        total_steps=steps,
        steps_per_epoch=4,
        start_step=0,
        started=100.0,
    )


def recorder(
    folder: Path,
    steps: int = 1,
    file: StringIO | None = None,
    *observers: Any,
    start: int = 0,
    goodput: Goodput | None = None,
    **options: Any,
) -> Recorder:
    """Writes to `folder`, shows the run in `file`, and tells `observers`."""
    active = ActiveAlarms()
    progress = Progress(Console(RichConsole(file=file or StringIO(), width=200)), active)
    goodput = goodput or Goodput(AttemptStart(0.0))
    metrics = RunMetrics(active, goodput)
    told = Observers([goodput, metrics, progress, *observers], print, active.event)
    told.run_started(facts(folder, steps))
    return Recorder(
        folder / "metrics.jsonl",
        start_step=start,
        total_steps=steps,
        metrics=metrics,
        progress=progress,
        observers=told,
        goodput=goodput,
        **{"headroom": HeadroomWatch(small_config(), 20.0), **options},
    )


def report(stage: int, step: int, **values: Any) -> StepReport:
    """One step of a stage that is busy for a second a step."""
    known = {"busy": step + 1.0, "wait_input": 0.0, "wait_output": 0.0, "queue_depth": 1, "link_bytes": 10}
    return StepReport(stage, step, **{"loss": 0.5, "terms": {}, "learning_rate": 0.1, "skipped": 0, **known, **values})


class Witness:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []

    def run_started(self, facts: RunFacts) -> None:
        self.told.append(("started", facts))

    def step_done(self, line: Mapping[str, Any]) -> None:
        self.told.append(("step", line))

    def event(self, event: Event) -> None:
        self.told.append(("event", event))

    def run_ended(self, outcome: str) -> None:
        self.told.append(("ended", outcome))

    def of(self, what: str) -> list[Any]:
        return [word for kind, word in self.told if kind == what]


def read_steps(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """All lines of `metrics.jsonl`, and the notes."""
    notes: list[str] = []
    return list(each_step(path, notes)), notes
