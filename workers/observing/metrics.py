"""The Prometheus metrics of a run, in a registry of their own, made from the catalogue; the coordinator serves them.

Stages report at different times, so values of a stage are set when its report arrives; values of the whole run are set
when all stages have finished a step.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from math import nan
from typing import Any, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from pipeline.config import Config
from workers.control.feed_report import PARTS, FeedMeasures
from workers.control.step_report import StepReport, ThrottleReason
from workers.observing.active_alarms import ActiveAlarms
from workers.observing.catalogue import BUCKETS, CATALOGUE, GOODPUT, MAX_TERMS, Metric
from workers.observing.goodput import LOST, AttemptStart, Goodput
from workers.observing.line_numbers import MAX_LENGTH
from workers.observing.observer import ALARMS, Event, RunFacts
from workers.topology.processes import stage_groups

REPLICA = "0"
QUALITY = {
    "rankme": "onward_representation_rank",
    "lidar": "onward_lidar",
    "collapse": "onward_collapse_level",
    "alpha": "onward_alpha_req",
    "alpha_r2": "onward_alpha_req_r2",
}
"""Gauge of each measure."""
FROM_THE_START = (
    ("onward_restarts_total",),
    ("onward_skipped_steps_total",),
    ("onward_online_skipped_steps_total",),
    ("onward_stage_wait_seconds_total", "input"),
    ("onward_stage_wait_seconds_total", "output"),
    ("onward_stage_copy_seconds_total",),
    ("onward_stage_flops_total",),
    ("onward_allocator_retries_total",),
)
"""Counters that start at 0 for every stage: Prometheus misses the first increase of a counter that appears later."""


class RunMetrics:
    """All exported metrics; an observer that also receives single reports.

    Setting a name that is not in the catalogue raises `KeyError`.

    Args:
        active: which alarms are on.
        goodput: of the run; of nothing if not given.
    """

    def __init__(self, active: ActiveAlarms, goodput: Goodput | None = None) -> None:
        self._active = active
        # Otherwise the client adds a `_created` gauge for each counter, which the catalogue does not list.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._made = {metric.name: _make(metric, self.registry) for metric in CATALOGUE if metric not in GOODPUT}
        self.registry.register(_GoodputMetrics(goodput or Goodput(AttemptStart())))
        self._labelled: dict[tuple[str, tuple[str, ...]], Counter | Gauge | Histogram] = {}
        """Those that have been set, with their labels: the client takes long to look one up."""
        self._receiving: set[int] = set()
        self._sending: set[int] = set()
        self._left_out: dict[int, float] = {}
        self._terms: defaultdict[int, set[str]] = defaultdict(set)
        """Names of the terms of each stage that are exported."""
        for name in ALARMS:
            self._set("onward_alarm", 0, name)
            self._grow("onward_alarms_total", 0, name)
        for name in ("onward_eta_seconds", "onward_bound_images_per_second", "onward_predicted_images_per_second"):
            self._set(name, nan)  # 0 would mean that the run is over, or that it stands still

    def run_started(self, facts: RunFacts) -> None:
        """See `Observer.run_started`."""
        config = Config.model_validate_json(json.dumps(facts.config))
        groups = [] if config.in_one_process else stage_groups(config)
        self._receiving, self._sending = {group[0] for group in groups}, {group[-1] for group in groups[:-1]}
        names = (config.mode, config.link.kind if groups else "none", config.objective.kind)
        self._set("onward_run_info", 1, facts.name, version("onward"), *names, facts.config["model"]["backbone"])
        self._set("onward_run_steps", facts.total_steps)
        for stage in range(1, facts.stages + 1):
            for name, *labels in FROM_THE_START:
                self._grow(name, 0, str(stage), REPLICA, *labels)
        for stage in self._receiving:
            self._set("onward_link_capacity", config.link.depth, str(stage), REPLICA)

    def stage_report(self, report: StepReport, now: float) -> None:
        """Set the values of one report, received at `now`, in seconds since 1970."""
        labels = (str(report.stage), REPLICA)
        self._set("onward_step", report.step, *labels)
        self._set("onward_stage_last_report_timestamp_seconds", now, *labels)
        if report.stage in self._receiving:
            self._set("onward_link_queue_depth", report.queue_depth, *labels)
        self._set("onward_learning_rate", report.learning_rate, *labels)
        self._set("onward_gradient_norm", report.gradient_norm, *labels)
        self._set("onward_update_norm", report.update_norm, *labels)
        self._set("onward_process_memory_bytes", report.memory_bytes, *labels, "cpu")
        self._set("onward_process_memory_bytes", report.cuda_bytes, *labels, "cuda")
        self._set("onward_process_memory_bytes", report.cuda_peak_bytes, *labels, "cuda_peak")
        self._set("onward_device_peak_flops", report.peak_flops, *labels)
        for reason in () if report.throttled is None else get_args(ThrottleReason):
            self._set("onward_device_throttled", reason in (report.throttled or ()), *labels, reason)
        terms = self._terms[report.stage]
        for term, value in {"total": report.loss, **report.terms}.items():
            if (name := term[:MAX_LENGTH]) in terms or len(terms) < MAX_TERMS:
                terms.add(name)
                self._set("onward_objective_loss", value, *labels, name)
        self._online(report, labels)

    def add(self, stage: int, added: Mapping[str, float]) -> None:
        """Increase the counters of a stage by what one step added, also a repeated step."""
        labels = (str(stage), REPLICA)
        self._grow("onward_stage_busy_seconds_total", added["busy"], *labels)
        self._grow("onward_stage_wait_seconds_total", added["wait_input"], *labels, "input")
        self._grow("onward_stage_wait_seconds_total", added["wait_output"], *labels, "output")
        self._grow("onward_stage_copy_seconds_total", added["copying"], *labels)
        self._grow("onward_stage_flops_total", added["flops"], *labels)
        self._grow("onward_allocator_retries_total", added["alloc_retries"], *labels)
        self._grow("onward_skipped_steps_total", added["skipped"], *labels)
        if stage in self._sending:
            self._grow("onward_link_bytes_total", added["link_bytes"], *labels)

    def _online(self, report: StepReport, labels: tuple[str, str]) -> None:
        """Online measures; a gauge keeps its value between two measurements."""
        for measure, value in report.online.items():
            if measure in ("linear", "knn"):
                self._set("onward_probe_accuracy_ratio", value, *labels, measure)
            elif measure != "skipped":
                self._set(QUALITY[measure], value, *labels)
        # This total is saved in snapshots, so it does not restart from 0 with the process.
        skipped, before = report.online.get("skipped") or 0, self._left_out.get(report.stage, 0)
        if skipped > before:
            self._grow("onward_online_skipped_steps_total", skipped - before, *labels)
            self._left_out[report.stage] = skipped

    def snapshot_written(self, stage: int, seconds: float) -> None:
        """A stage's part of a snapshot was written, `seconds` after it was taken; may be called from any thread."""
        made = self._made["onward_snapshot_seconds"]
        assert isinstance(made, Histogram)
        made.labels(str(stage), REPLICA).observe(seconds)

    def feed_measured(self, feed: FeedMeasures, added: Mapping[str, float]) -> None:
        """Set the values of the feed, and increase its counters by `added`, by name and by part of its work."""
        for name in ("images", "restarts", "skipped"):
            self._grow(f"onward_feed_{name}_total", added[name])
        self._grow("onward_feed_wait_seconds_total", added["wait_seconds"])
        self._set("onward_feed_memory_bytes", feed.memory_bytes)
        for part in PARTS:
            self._grow("onward_feed_seconds_total", added.get(part, 0.0), part)

    def step_done(self, line: Mapping[str, Any]) -> None:
        """See `Observer.step_done`."""
        self._grow("onward_samples_total", line["images"])
        self._set("onward_epoch", line["epoch"])
        self._set("onward_images_per_second", line["images_per_second"])
        self._set("onward_bound_images_per_second", line.get("bound_images_per_second"))
        self._set("onward_predicted_images_per_second", line.get("predicted_images_per_second"))
        self._set("onward_eta_seconds", line["eta_seconds"])

    def event(self, event: Event) -> None:
        """See `Observer.event`."""
        if event.kind == "restart" and event.stage is not None:
            self._grow("onward_restarts_total", 1, str(event.stage), REPLICA)
        if event.kind in ("alarm", "cleared") and event.name in ALARMS:
            self._grow("onward_alarms_total", event.kind == "alarm", event.name)
            self._set("onward_alarm", bool(self._active.stages(event.name)), event.name)

    def run_ended(self, outcome: str) -> None:
        """See `Observer.run_ended`; values stay until the process ends."""

    def _set(self, name: str, value: float | None, *labels: str) -> None:
        """Set a gauge; None leaves it unchanged."""
        assert isinstance(self._made[name], Gauge)
        if value is not None:
            gauge = self._with_labels(name, labels)
            assert isinstance(gauge, Gauge)
            gauge.set(value)

    def _grow(self, name: str, by: float, *labels: str) -> None:
        counter = self._with_labels(name, labels)
        assert isinstance(counter, Counter)
        counter.inc(by)

    def _with_labels(self, name: str, labels: tuple[str, ...]) -> Counter | Gauge | Histogram:
        found = self._labelled.get((name, labels))
        if found is None:
            made = self._made[name]
            found = self._labelled[name, labels] = made.labels(*labels) if labels else made
        return found


class _GoodputMetrics(Collector):
    """What a run has spent, as it was added up.

    A counter that is increased by differences may end an ulp above the sum. The next attempt begins with the sum, which
    would look like a counter that was reset.
    """

    def __init__(self, goodput: Goodput) -> None:
        self._goodput = goodput

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """The metrics of the group `GOODPUT`."""
        spent = self._goodput.spent
        ratio, seconds, run, lost = GOODPUT
        yield GaugeMetricFamily(ratio.name, ratio.help, nan if spent.ratio is None else spent.ratio)
        yield CounterMetricFamily(seconds.name, seconds.help, spent.new)
        yield CounterMetricFamily(run.name, run.help, spent.run)
        causes = CounterMetricFamily(lost.name, lost.help, labels=lost.labels)
        for cause in LOST:
            causes.add_metric([cause], getattr(spent, cause))
        yield causes


def _make(metric: Metric, registry: CollectorRegistry) -> Counter | Gauge | Histogram:
    if metric.kind == "counter":
        return Counter(metric.name, metric.help, metric.labels, registry=registry)
    if metric.kind == "gauge":
        return Gauge(metric.name, metric.help, metric.labels, registry=registry)
    return Histogram(metric.name, metric.help, metric.labels, registry=registry, buckets=BUCKETS)
