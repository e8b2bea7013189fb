"""Joins the reports of all stages, step by step, and hands them to the file and to all who observe the run.

Stages finish a step at different times: a line of `metrics.jsonl` is written when the last of them has.
"""

from __future__ import annotations

import io
import json
import time
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pipeline.ordinary_files import open_to_write
from workers.control.feed_report import FeedMeasures
from workers.control.step_report import StepReport
from workers.control.validation import MalformedMessage
from workers.coordinator.throughput import Pace
from workers.observing.backlog import Backlog
from workers.observing.metrics import RunMetrics
from workers.observing.observer import Observers
from workers.observing.terminal.progress import Progress

ADVICE_STEPS = 20
ADVICE_SHARE = 0.1
"""A run that waits for the feed longer than this share of its time, over so many steps, is told what to do."""


class Recorder:
    """The one consumer of step reports in either runtime; a context manager.

    Args:
        path: of `metrics.jsonl`.
        start_step, total_steps: the steps of the run.
        metrics: is told of single reports, before their step is complete.
        progress: ends with the steps, because others print after them.
        observers: are told of complete steps; metrics and progress are among them.
    """

    def __init__(
        self,
        path: Path,
        start_step: int,
        total_steps: int,
        *,
        metrics: RunMetrics,
        progress: Progress,
        observers: Observers,
    ) -> None:
        self.metrics, self.progress, self.observers = metrics, progress, observers
        self.backlog = Backlog(start_step, total_steps)
        """What the run waits for."""
        self._pace = Pace(total_steps)
        self._file = io.TextIOWrapper(open_to_write(path, path.parent), encoding="utf-8", line_buffering=True)
        self._waiting: dict[int, dict[int, StepReport]] = {}
        self._batches: dict[int, tuple[int, int, int]] = {}
        self.latest: dict[int, StepReport] = {}
        """Last report of every stage."""
        self.feed = FeedMeasures()
        """How the feed stood when the last batch was sent, or when the first stage that has its own reported last."""
        self._heard: dict[int, StepReport] = {}
        """The last report of every stage's process, also of a step that it went through again."""
        self._before: dict[int, tuple[float, float, float]] = {}
        """Seconds busy, waiting for input and for output of processes of a stage that were replaced."""
        self._left_out: dict[int, int] = {}
        self._snapshot_seconds: dict[int, float] = {}
        self.images = self.steps = 0
        self._entered = 0
        self._counted_from: float | None = None
        """When the second step entered the first stage: from then on throughput is counted, the fill included."""
        self._last_time = 0.0
        self._first_images = 0
        self._first_wait = 0.0

    def __enter__(self) -> Self:
        self.progress.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.__exit__(kind, error, trace)
        self._file.close()

    def batch_sent(self, step: int, epoch: int, images: int, stages: int) -> None:
        """A batch of `images` images has entered the pipeline as `step`, and will reach so many stages."""
        self._entered += 1
        if self._entered == 1:
            self._first_images = images
        elif self._counted_from is None:
            self._counted_from, self._first_wait = time.monotonic(), self.feed.wait_seconds
        self._batches[step] = (epoch, images, stages)
        self.backlog.batch_sent(step, stages)

    def stage_report(self, report: StepReport) -> None:
        """A stage has finished a step; one that was restarted goes through some steps again, which count once."""
        self.backlog.heard(report.stage, report.step)
        self._add_up(report)
        latest = self.latest.get(report.stage)
        if latest is not None and report.step <= latest.step:
            self.metrics.repeated(report)
            return
        if report.step not in self._batches:
            raise MalformedMessage(f"a report of step {report.step}, which no batch was sent for")
        self.latest[report.stage] = report
        if report.feed is not None:
            self.feed = report.feed
        if skipped := report.online.get("skipped"):
            self._left_out[report.stage] = int(skipped)
        self.metrics.stage_report(report, time.time())
        reports = self._waiting.setdefault(report.step, {})
        reports[report.stage] = report
        if len(reports) == self._batches[report.step][2]:
            self._step_done(report.step, [reports[index] for index in sorted(reports)])
            del self._waiting[report.step]

    def _add_up(self, report: StepReport) -> None:
        """A process that was replaced began to count anew; what the one before it did is part of the run."""
        last = self._heard.get(report.stage)
        if last is not None and report.busy < last.busy:
            before = self._before.get(report.stage, (0.0, 0.0, 0.0))
            spent = (last.busy, last.wait_input, last.wait_output)
            self._before[report.stage] = tuple(map(sum, zip(before, spent, strict=True)))  # type: ignore[assignment]
        self._heard[report.stage] = report

    def snapshot_written(self, stage: int, seconds: float) -> None:
        """A stage's part of a snapshot has been written, so long after it was taken; called from any thread."""
        self._snapshot_seconds[stage] = seconds
        self.metrics.snapshot_written(stage, seconds)

    def _step_done(self, step: int, reports: list[StepReport]) -> None:
        epoch, images, _ = self._batches.pop(step)
        self.backlog.step_done(step)
        now = time.monotonic()
        self.images += images
        self.steps += 1
        self._last_time = now
        rate, left = self._pace.step_done(step, images)
        line = {
            "step": step,
            "epoch": epoch,
            "time": time.time(),
            "images": images,
            "images_per_second": round(rate, 2),
            "eta_seconds": None if left is None else round(left, 1),
            "feed_wait_seconds": self.feed.wait_seconds,
            "stages": [self._line(report) for report in reports],
        }
        self._file.write(json.dumps(line) + "\n")
        self.metrics.feed_measured(self.feed)
        self.observers.step_done(line)

    def _line(self, report: StepReport) -> dict[str, Any]:
        """A stage's report as it is written; the feed has a place of its own in `report.json`."""
        values = {n: v for n, v in asdict(report).items() if n != "feed" and (n != "online" or v)}
        return {**values, "snapshot_seconds": self._snapshot_seconds.get(report.stage)}

    @property
    def images_per_second(self) -> float:
        """Throughput from when the second step entered the first stage to the end of the last; 0 where none did."""
        return max(self.images - self._first_images, 0) / self._seconds if self._seconds else 0.0

    @property
    def feed_wait_share(self) -> float:
        """Of the same time, the share in which the run waited for images, 0 to 1."""
        waited = self.feed.wait_seconds - self._first_wait
        return min(waited / self._seconds, 1.0) if self._seconds else 0.0

    @property
    def _seconds(self) -> float:
        return 0.0 if self._counted_from is None else max(self._last_time - self._counted_from, 0.0)

    def feed_report(self) -> dict[str, Any]:
        """The feed's part of `report.json`: its measures, what it spent by part as shares, and the wait for it."""
        return {**asdict(self.feed), "shares": self.feed.shares(), "wait_share": self.feed_wait_share}

    def feed_notes(self) -> list[str]:
        """What the user should know about the feed when the run has ended, a sentence each."""
        notes = []
        if self.feed.skipped:
            notes.append(
                f"{self.feed.skipped} times another image stood in for one that cannot be decoded; see the log"
            )
        if self.steps >= ADVICE_STEPS and self.feed_wait_share > ADVICE_SHARE:
            share, workers = f"{100 * self.feed_wait_share:.0f} %", self.feed.workers
            notes.append(f"the run waited for images {share} of the time: raise data.workers (it is {workers})")
        return notes

    def notes(self) -> list[str]:
        """What the user should know when the run has ended, a sentence each."""
        return self.feed_notes() + [
            f"stage {stage}: its features were not finite at {steps} steps, which online measures left out"
            for stage, steps in sorted(self._left_out.items())
        ]

    def shares(self) -> list[dict[str, Any]]:
        """For every stage, the share of its time spent computing and waiting, 0 to 1, and the steps it skipped."""
        rows = []
        for stage in sorted(self.latest):
            report = self._heard[stage]
            before = self._before.get(stage, (0.0, 0.0, 0.0))
            spent = [a + b for a, b in zip(before, (report.busy, report.wait_input, report.wait_output), strict=True)]
            total = max(sum(spent), 1e-9)
            parts = dict(zip(("busy", "wait_input", "wait_output"), (part / total for part in spent), strict=True))
            rows.append({"stage": stage, **parts, "busy_seconds": spent[0], "skipped": self.latest[stage].skipped})
        return rows
