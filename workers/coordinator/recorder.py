"""Joins the reports of all stages into one line per step, for `metrics.jsonl` and for the observers.

Stages finish a step at different times; its line is written when the last stage has reported it.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pipeline.errors import UserError
from workers.control.feed_report import FeedMeasures
from workers.control.step_report import StepReport
from workers.control.validation import MalformedMessage
from workers.coordinator.step_lines import StepLines
from workers.coordinator.throughput import Throughput
from workers.observing.amounts import RUN, STAGE_TOTALS, Growth, Sums, amounts, finite_of, written
from workers.observing.backlog import Backlog
from workers.observing.goodput import Goodput
from workers.observing.headroom_watch import HeadroomWatch
from workers.observing.history_file import each_step
from workers.observing.metrics import RunMetrics
from workers.observing.observer import TIMES, Observers
from workers.observing.terminal.progress import Progress

ADVICE_STEPS = 20
ADVICE_SHARE = 0.1
"""A run of at least this many steps that waits for the feed longer than this share of its time gets a note."""

WHERE_KNOWN = ("frozen", "flops", "alloc_retries", "cuda_peak_bytes", "peak_flops", "throttled", "digests")
"""Keys that a line of `metrics.jsonl` has only where they are true or measured: most of them need a GPU."""
FEED_TOTALS = ("wait_seconds", "images", "restarts", "skipped")
"""Totals of a feed, apart from the seconds of each part of its work."""


class Recorder:
    """The one consumer of step reports in either runtime; a context manager.

    Args:
        path: of `metrics.jsonl`.
        start_step, total_steps: the steps of the run.
        metrics: receives single reports, before their step is complete.
        progress: stopped after the last step, because the summary is printed then.
        observers: receive complete steps; metrics and progress are among them.
        goodput: gets the lines that are written.
        headroom: gets every step, and adds the bound and the prediction to its line.
        line_ends: see `StepLines`.
        digested: is called with stage, step and digests of every report, also of a step that is repeated.
    """

    def __init__(
        self,
        path: Path,
        *,
        start_step: int,
        total_steps: int,
        metrics: RunMetrics,
        progress: Progress,
        observers: Observers,
        goodput: Goodput,
        headroom: HeadroomWatch,
        line_ends: Sequence[int] = (1,),
        digested: Callable[[int, int, Mapping[Any, str]], object] = lambda stage, step, digests: None,
    ) -> None:
        self.metrics, self.progress, self.observers = metrics, progress, observers
        self.backlog = Backlog(start_step, total_steps)
        """What the run is waiting for."""
        self._pace = Throughput(total_steps)
        self._path, self._start_step, self._digested = path, start_step, digested
        self._goodput, self._headroom = goodput, headroom
        self._lines = StepLines(path, line_ends, goodput.written)
        self._waiting: dict[int, dict[int, StepReport]] = {}
        self._batches: dict[int, tuple[int, int, int]] = {}
        self.latest: dict[int, StepReport] = {}
        """Last report of every stage."""
        self.feed = FeedMeasures()
        """Totals of the feed when the last batch was sent, or of the first stage's own feed in its last report."""
        self._growth, self._added = Growth(), dict[tuple[int, int], dict[str, float]]()
        self._spent: defaultdict[int, Sums] = defaultdict(Sums)
        """Sums over this attempt per stage, repeated steps included; 0: of the feed."""
        self._replaced = False
        """Whether a process was replaced since the last complete step."""
        self._repeating_since: float | None = None
        """When such a process had done the first step again; None until it has."""
        self._left_out: dict[int, int] = {}
        self._snapshot_seconds: dict[int, float] = {}
        self.images = self.steps = 0
        self._entered = 0
        self._counted_from: float | None = None
        """When the second step entered the first stage; throughput is measured from then on, with the pipeline fill."""
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
        self._lines.close()

    def batch_sent(self, step: int, epoch: int, images: int, stages: int) -> None:
        """A batch of `images` images has entered the pipeline as `step`, and will reach `stages` stages."""
        self._entered += 1
        if self._entered == 1:
            self._first_images = images
        elif self._counted_from is None:
            self._counted_from, self._first_wait = time.monotonic(), self.feed.wait_seconds
        self._batches[step] = (epoch, images, stages)
        self.backlog.batch_sent(step, stages)

    def stage_report(self, report: StepReport) -> None:
        """A stage has finished a step; a restarted stage repeats some steps, whose lines exist already."""
        self.backlog.reported(report.stage, report.step)
        latest = self.latest.get(report.stage)
        repeated = latest is not None and report.step <= latest.step
        added, anew = self._growth.of(report.stage, {name: getattr(report, name) for name in STAGE_TOTALS})
        self._replaced = self._replaced or repeated or anew
        if repeated:
            self._repeating_since = self._repeating_since or time.monotonic()
            added["skipped"] = 0  # counted when the step was done for the first time
        self._spent[report.stage].add(added)
        self.metrics.add(report.stage, added)
        self._digested(report.stage, report.step, report.digests)
        if repeated:
            return
        if report.step not in self._batches:
            raise MalformedMessage(f"a report of step {report.step}, which no batch was sent for")
        self.latest[report.stage] = report
        if report.feed is not None:
            self.feed = report.feed
        if skipped := report.online.get("skipped"):
            self._left_out[report.stage] = int(skipped)
        self.metrics.stage_report(report, time.time())
        self._added[report.step, report.stage] = added
        reports = self._waiting.setdefault(report.step, {})
        reports[report.stage] = report
        if len(reports) == self._batches[report.step][2]:
            self._step_done(report.step, [reports[index] for index in sorted(reports)])
            del self._waiting[report.step]

    def restarted(self, stages: Iterable[int]) -> None:
        """The process of these stages is being replaced; the new one counts from 0."""
        self._repeating_since = None
        for stage in stages:
            self._growth.forget(stage)
            if stage in self.latest and self.latest[stage].feed is not None:
                self._growth.forget(RUN)

    def snapshot_written(self, stage: int, seconds: float) -> None:
        """A stage's part of a snapshot was written, `seconds` after it was taken; may be called from any thread."""
        self._snapshot_seconds[stage] = seconds
        self.metrics.snapshot_written(stage, seconds)

    def _step_done(self, step: int, reports: list[StepReport]) -> None:
        epoch, images, _ = self._batches.pop(step)
        self.backlog.step_done(step)
        now = time.monotonic()
        feed = self._feed_added()
        added = {"feed_wait_seconds": feed["wait_seconds"]}
        if self.steps and not self._replaced:
            added["seconds"] = now - self._last_time
        elif self._repeating_since is not None:
            added["repeat_seconds"] = now - self._repeating_since
        self._replaced, self._repeating_since, self._last_time = False, None, now
        self.images += images
        self.steps += 1
        rate, left = self._pace.step_done(step, images)
        line = {
            "step": step,
            "epoch": epoch,
            "time": time.time(),
            "images": images,
            "images_per_second": round(rate, 2),
            "eta_seconds": None if left is None else round(left, 1),
            "feed_wait_seconds": self.feed.wait_seconds,
            "added": written(added),
            "stages": [self._line(report) for report in reports],
        }
        line |= self._headroom.step_done(line, feed, now)
        self._lines.add(line)
        self.observers.step_done(line)

    def _feed_added(self) -> dict[str, float]:
        """Add up the totals of the feed; returns what was added since the last call."""
        feed = self.feed
        added, _ = self._growth.of(RUN, _totals_of(feed))
        self._spent[RUN].add(added)
        self.metrics.feed_measured(feed, added)
        return added

    def _line(self, report: StepReport) -> dict[str, Any]:
        """A stage's report as it is written, without the feed's, which is part of `report.json`."""
        values = {n: v for n, v in vars(report).items() if n != "feed" and (v or n not in ("online", *WHERE_KNOWN))}
        added = written(self._added.pop((report.step, report.stage)))
        return {**values, "snapshot_seconds": self._snapshot_seconds.get(report.stage), "added": added}

    @property
    def images_per_second(self) -> float:
        """Throughput from the start of the second step to the end of the last; 0 where there is no second step."""
        return max(self.images - self._first_images, 0) / self._seconds if self._seconds else 0.0

    @property
    def feed_wait_share(self) -> float:
        """Share of the same time that the run waited for images, 0 to 1."""
        waited = self._spent[RUN].get("wait_seconds", 0.0) - self._first_wait
        return min(waited / self._seconds, 1.0) if self._seconds else 0.0

    @property
    def _seconds(self) -> float:
        return 0.0 if self._counted_from is None else max(self._last_time - self._counted_from, 0.0)

    def report(self) -> dict[str, Any]:
        """The part of `report.json` that sums up the reports.

        `images`, `seconds`, `goodput` and `stages` cover the whole run, all rates and `feed` its last attempt.
        """
        stages, run = self._earlier()
        for stage in self.latest:
            stages[stage].add(self._spent[stage])
        return {
            "images": self.images + int(run.get("images", 0)),
            "images_per_second": self.images_per_second,
            "seconds": self.progress.seconds + run.get("seconds", 0.0),
            **({} if (found := self._headroom.at_end(self.images_per_second)) is None else found.to_json()),
            "goodput": self._goodput.spent.to_json(),
            "stages": [{**_shares(stage, stages[stage]), **self._utilisation(stage)} for stage in sorted(stages)],
            "feed": self.feed_report(),
        }

    def _utilisation(self, stage: int) -> dict[str, float]:
        """FLOP/s of a stage over the last attempt, and its share of the peak (MFU); without what is not known."""
        report, flops = self.latest.get(stage), self._spent[stage].get("flops", 0.0)
        rate = self.images_per_second * flops / self.images if self.images else 0.0
        if report is None or not rate:
            return {}
        return {"flops_per_second": rate} | ({"mfu": rate / report.peak_flops} if report.peak_flops else {})

    def _earlier(self) -> tuple[defaultdict[int, Sums], Sums]:
        """Sums over the lines of earlier attempts, per stage and of the run, up to a damaged line if there is one."""
        stages, run = defaultdict[int, Sums](Sums), Sums()
        with suppress(UserError):
            for line in each_step(self._path, []) if self._start_step else ():
                if line["step"] >= self._start_step:
                    break
                run.add(finite_of({**line["added"], "images": line.get("images")}, ("images", "seconds")))
                for stage in line["stages"]:
                    stages[stage["stage"]].add(dict.fromkeys(STAGE_TOTALS, 0) | amounts(stage, STAGE_TOTALS))
        return stages, run

    def feed_report(self) -> dict[str, Any]:
        """The feed's part of `report.json`: its totals, shares of its working time, and the share of waiting for it."""
        feed = self._whole_feed()
        return {**asdict(feed), "shares": feed.shares(), "wait_share": self.feed_wait_share}

    def _whole_feed(self) -> FeedMeasures:
        """The feed's totals, including those of feeds that were replaced."""
        self._feed_added()
        spent = self._spent[RUN]
        totals = {name: type(value)(spent[name]) for name, value in asdict(self.feed).items() if name in FEED_TOTALS}
        return replace(self.feed, **totals, seconds={part: spent[part] for part in self.feed.seconds})

    def feed_notes(self) -> list[str]:
        """Notes about the feed for the end of the run, one sentence each."""
        notes, feed = [], self._whole_feed()
        if feed.skipped:
            notes.append(f"{feed.skipped} times another image stood in for one that cannot be decoded; see the log")
        told = self._headroom.latest is not None and self._headroom.latest.cause == "feed"
        if self.steps >= ADVICE_STEPS and self.feed_wait_share > ADVICE_SHARE and not told:
            share, workers = f"{100 * self.feed_wait_share:.0f} %", feed.workers
            notes.append(f"the run waited for images {share} of the time: raise data.workers (it is {workers})")
        return notes

    def notes(self) -> list[str]:
        """Notes for the end of the run, one sentence each."""
        return self.feed_notes() + [
            f"stage {stage}: its features were not finite at {steps} steps, which online measures left out"
            for stage, steps in sorted(self._left_out.items())
        ]


def _shares(stage: int, spent: Sums) -> dict[str, Any]:
    """Shares of a stage's time, 0 to 1, its busy seconds, and its skipped steps."""
    whole = max(sum(spent[name] for name in TIMES), 1e-9)
    parts: dict[str, float] = {name: spent[name] / whole for name in TIMES}
    return {"stage": stage, **parts, "busy_seconds": spent["busy"], "skipped": int(spent["skipped"])}


def _totals_of(feed: FeedMeasures) -> dict[str, float]:
    return {**{name: getattr(feed, name) for name in FEED_TOTALS}, **feed.seconds}
