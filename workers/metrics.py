"""The Prometheus metrics of a run, on a registry of their own, served by the coordinator.

Prefix `onward_`, base units, labels `stage` and `replica`. Exporting happens on the server's own
thread; a metric that was asked for and cannot be served is an error at the start.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from pipeline import config as settings
from pipeline.errors import UserError
from workers.feed.measures import FeedMeasures
from workers.reports import StepReport

STAGE = ("stage", "replica")
REPLICA = "0"
QUALITY_GAUGES = {
    "rankme": ("onward_representation_rank", "RankMe of a stage's features: their effective rank"),
    "lidar": ("onward_lidar", "LiDAR of a stage's features: effective rank of what separates images"),
    "collapse": ("onward_collapse_level", "Spread of the directions of a stage's features; 0: collapsed"),
    "alpha": ("onward_alpha_req", "Exponent at which the spectrum of a stage's features decays"),
    "alpha_r2": ("onward_alpha_req_r2", "Share of the spectrum's variance that this power law explains"),
}
"""By the name of the measure: that of its gauge, and what it says."""


class RunMetrics:
    """Everything that is exported; updated by the recorder."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.samples = Counter("onward_samples", "Images that every stage has learned from", registry=registry)
        self.step = Gauge(
            "onward_step", "Last step that a stage has finished, counted from 0", STAGE, registry=registry
        )
        self.busy = Counter("onward_stage_busy_seconds", "Time a stage spent computing", STAGE, registry=registry)
        self.wait = Counter(
            "onward_stage_wait_seconds",
            "Time a stage spent waiting for its neighbour",
            (*STAGE, "direction"),
            registry=registry,
        )
        self.link_bytes = Counter("onward_link_bytes", "Bytes a stage has sent to the next", STAGE, registry=registry)
        self.queue_depth = Gauge(
            "onward_link_queue_depth", "Batches waiting at the input of a stage", STAGE, registry=registry
        )
        self.loss = Gauge("onward_objective_loss", "Loss of a stage and its terms", (*STAGE, "term"), registry=registry)
        self.learning_rate = Gauge("onward_learning_rate", "Learning rate of a stage", STAGE, registry=registry)
        self.skipped = Counter(
            "onward_skipped_steps",
            "Steps skipped because the loss or a gradient was not finite",
            STAGE,
            registry=registry,
        )
        self.probe_accuracy = Gauge(
            "onward_probe_accuracy_ratio",
            "Training images that an online probe of a stage classifies correctly, over the last steps",
            (*STAGE, "probe"),
            registry=registry,
        )
        self.quality = {
            measure: Gauge(name, text, STAGE, registry=registry) for measure, (name, text) in QUALITY_GAUGES.items()
        }
        self.online_skipped = Counter(
            "onward_online_skipped_steps",
            "Steps that online measures left out because features were not finite",
            STAGE,
            registry=registry,
        )
        self.restarts = Counter("onward_restarts", "Times a stage was brought back", STAGE, registry=registry)
        self.feed_wait = Counter("onward_feed_wait_seconds", "Time the pipeline waited for images", registry=registry)
        self.feed_images = Counter("onward_feed_images", "Images that the feed has made", registry=registry)
        self.feed_seconds = Counter(
            "onward_feed_seconds", "Time of all feed workers together, by part", ("part",), registry=registry
        )
        self.feed_restarts = Counter(
            "onward_feed_restarts", "Feed workers that died and were replaced", registry=registry
        )
        self.feed_skipped = Counter(
            "onward_feed_skipped", "Images that could not be decoded, others in their place", registry=registry
        )
        self.feed_memory = Gauge("onward_feed_memory_bytes", "Memory that batches are made in", registry=registry)
        self._last: dict[int, StepReport] = {}
        self._left_out: dict[int, float] = {}
        self._feed = FeedMeasures()

    def stage_report(self, report: StepReport) -> None:
        """Take in one step of one stage."""
        labels = (str(report.stage), REPLICA)
        last = self._last.get(report.stage)
        self._last[report.stage] = report

        def grown(name: str) -> float:
            now: float = getattr(report, name)
            return max(now - (getattr(last, name) if last else 0), 0)

        self.step.labels(*labels).set(report.step)
        self.busy.labels(*labels).inc(grown("busy"))
        self.wait.labels(*labels, "input").inc(grown("wait_input"))
        self.wait.labels(*labels, "output").inc(grown("wait_output"))
        self.link_bytes.labels(*labels).inc(grown("link_bytes"))
        self.skipped.labels(*labels).inc(grown("skipped"))
        self.queue_depth.labels(*labels).set(report.queue_depth)
        self.learning_rate.labels(*labels).set(report.learning_rate)
        for term, value in {"total": report.loss, **report.terms}.items():
            if value is not None:
                self.loss.labels(*labels, term).set(value)
        self._online(report, labels)

    def _online(self, report: StepReport, labels: tuple[str, str]) -> None:
        """What was measured beside the training; between two measurements a gauge stays."""
        for measure, value in report.online.items():
            if value is None or measure == "skipped":
                continue
            if measure in ("linear", "knn"):
                self.probe_accuracy.labels(*labels, measure).set(value)
            else:
                self.quality[measure].labels(*labels).set(value)
        # A total that snapshots keep: of a stage that came back it does not begin at 0 again.
        skipped, before = report.online.get("skipped") or 0, self._left_out.get(report.stage, 0)
        if skipped > before:
            self.online_skipped.labels(*labels).inc(skipped - before)
            self._left_out[report.stage] = skipped

    def restarted(self, stages: Iterable[int]) -> None:
        """These stages start over from a snapshot; what they report as totals begins at 0 again."""
        for stage in stages:
            self.restarts.labels(str(stage), REPLICA).inc()
            self._last.pop(stage, None)

    def step_done(self, images: int, feed: FeedMeasures) -> None:
        """Every stage has finished a step of `images` images; `feed` is how the feed stands."""
        self.samples.inc(images)
        last, self._feed = self._feed, feed
        self.feed_wait.inc(_grown(feed.wait_seconds, last.wait_seconds))
        self.feed_images.inc(_grown(feed.images, last.images))
        self.feed_restarts.inc(_grown(feed.restarts, last.restarts))
        self.feed_skipped.inc(_grown(feed.skipped, last.skipped))
        self.feed_memory.set(feed.memory_bytes)
        for part, spent in feed.seconds.items():
            self.feed_seconds.labels(part).inc(_grown(spent, last.seconds.get(part, 0.0)))

    def serve(self, config: settings.Metrics) -> str:
        """Start the endpoint and return its URL.

        Raises:
            UserError: the address cannot be listened on.
        """
        try:
            server, _ = start_http_server(config.port, config.host, registry=self.registry)
        except OSError as error:
            where = f"metrics.host={config.host} metrics.port={config.port}"
            raise UserError(f"{where}: cannot listen there ({error.strerror or error}). Give another port") from None
        return f"http://{config.host}:{server.server_port}/metrics"


def _grown(now: float, before: float) -> float:
    """By how much a total has grown; the feed of a process that was restarted begins at 0 again."""
    return now - before if now >= before else now
