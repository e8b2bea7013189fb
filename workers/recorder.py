"""Joins the reports of all stages, step by step, and hands them to the file, the metrics and the terminal.

Stages finish a step at different times: a line of `metrics.jsonl` is written when the last of them has.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from workers.metrics import RunMetrics
from workers.parsing import MalformedMessage
from workers.progress import Progress
from workers.reports import StepReport


class Recorder:
    """The one consumer of step reports in either runtime; a context manager."""

    def __init__(self, path: Path, metrics: RunMetrics, progress: Progress) -> None:
        self.metrics, self.progress = metrics, progress
        self._file = path.open("a", encoding="utf-8", buffering=1)
        self._waiting: dict[int, dict[int, StepReport]] = {}
        self._batches: dict[int, tuple[int, int, int]] = {}
        self.latest: dict[int, StepReport] = {}
        """Last report of every stage."""
        self.feed_wait = 0.0
        self.images = 0
        self._first_time: float | None = None
        self._last_time = 0.0
        self._first_images = 0

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
        self._batches[step] = (epoch, images, stages)

    def stage_report(self, report: StepReport) -> None:
        """A stage has finished a step; one that was restarted goes through some steps again, which count once."""
        latest = self.latest.get(report.stage)
        if latest is not None and report.step <= latest.step:
            return
        if report.step not in self._batches:
            raise MalformedMessage(f"a report of step {report.step}, which no batch was sent for")
        self.latest[report.stage] = report
        self.metrics.stage_report(report)
        reports = self._waiting.setdefault(report.step, {})
        reports[report.stage] = report
        if len(reports) == self._batches[report.step][2]:
            self._step_done(report.step, [reports[index] for index in sorted(reports)])
            del self._waiting[report.step]

    def _step_done(self, step: int, reports: list[StepReport]) -> None:
        epoch, images, _ = self._batches.pop(step)
        now = time.monotonic()
        self.images += images
        if self._first_time is None:
            self._first_time, self._first_images = now, self.images
        self._last_time = now
        self.metrics.step_done(images, self.feed_wait)
        rate = self.progress.step_done(step, images, [report.loss for report in reports])
        line = {"step": step, "epoch": epoch, "time": time.time(), "images_per_second": round(rate, 2)}
        self._file.write(json.dumps({**line, "stages": [asdict(report) for report in reports]}) + "\n")

    @property
    def images_per_second(self) -> float:
        """Throughput from the end of the first step to the end of the last; 0 for a run of one step."""
        if self._first_time is None or self._last_time <= self._first_time:
            return 0.0
        return (self.images - self._first_images) / (self._last_time - self._first_time)

    def shares(self) -> list[dict[str, Any]]:
        """For every stage, the share of its time spent computing and waiting, 0 to 1, and the steps it skipped."""
        rows = []
        for stage in sorted(self.latest):
            report = self.latest[stage]
            total = max(report.busy + report.wait_input + report.wait_output, 1e-9)
            rows.append(
                {
                    "stage": stage,
                    "busy": report.busy / total,
                    "wait_input": report.wait_input / total,
                    "wait_output": report.wait_output / total,
                    "busy_seconds": report.busy,
                    "skipped": report.skipped,
                }
            )
        return rows
