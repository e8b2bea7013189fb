"""The metrics as Prometheus reads them, through its own parser."""

from __future__ import annotations

import socket
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.config import Metrics
from pipeline.errors import UserError
from workers.feed import FeedMeasures
from workers.metrics import RunMetrics
from workers.reports import StepReport


def report(stage: int, step: int, busy: float) -> StepReport:
    terms = {"on_diagonal": 20.0, "off_diagonal": None}
    return StepReport(stage, step, 0.5, terms, 0.1, 2, busy, 0.25, 0.125, queue_depth=2, link_bytes=1000)


def scrape(url: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    with urllib.request.urlopen(url, timeout=5) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    assert all(family.documentation for family in families)
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def test_everything_a_run_reports_is_served() -> None:
    metrics = RunMetrics()
    url = metrics.serve(Metrics())
    for step, busy in enumerate([1.0, 2.5]):
        for stage in (1, 2):
            metrics.stage_report(report(stage, step, busy))
        spent = {"decode": 2.0 * step, "blur": 1.0 + step}
        feed = FeedMeasures(0.5 * (step + 1), 64 * (step + 2), spent, step, 3 * step, memory_bytes=4096)
        metrics.step_done(64, feed)
    values = scrape(url)
    stage = (("replica", "0"), ("stage", "2"))
    assert values["onward_samples_total", ()] == 128
    assert values["onward_feed_wait_seconds_total", ()] == 1.0
    assert values["onward_feed_images_total", ()] == 192
    assert values["onward_feed_seconds_total", (("part", "decode"),)] == 2.0
    assert values["onward_feed_seconds_total", (("part", "blur"),)] == 2.0
    assert values["onward_feed_restarts_total", ()] == 1
    assert values["onward_feed_skipped_total", ()] == 3
    assert values["onward_feed_memory_bytes", ()] == 4096
    assert values["onward_step", stage] == 1
    assert values["onward_stage_busy_seconds_total", stage] == 2.5
    assert values["onward_stage_wait_seconds_total", (("direction", "input"), *stage)] == 0.25
    assert values["onward_stage_wait_seconds_total", (("direction", "output"), *stage)] == 0.125
    assert values["onward_link_bytes_total", stage] == 1000
    assert values["onward_link_queue_depth", stage] == 2
    assert values["onward_skipped_steps_total", stage] == 2
    assert values["onward_learning_rate", stage] == 0.1
    assert values["onward_objective_loss", (*stage, ("term", "total"))] == 0.5
    assert values["onward_objective_loss", (*stage, ("term", "on_diagonal"))] == 20.0
    assert ("onward_objective_loss", (*stage, ("term", "off_diagonal"))) not in values, (
        "what is not finite is no number"
    )


def test_the_feed_of_a_process_that_was_restarted_begins_anew() -> None:
    metrics = RunMetrics()
    for images, spent in [(64, 2.0), (128, 4.0), (32, 0.5), (64, 1.0)]:
        metrics.step_done(32, FeedMeasures(images=images, wait_seconds=spent, seconds={"crop": spent}))
    values = {
        (sample.name, *sample.labels.values()): sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
    }
    assert values["onward_feed_images_total",] == 128 + 64
    assert values["onward_feed_wait_seconds_total",] == 4.0 + 1.0
    assert values["onward_feed_seconds_total", "crop"] == 4.0 + 1.0


def test_a_port_that_is_taken_is_an_error_at_the_start() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"metrics\.port={port}.*[Gg]ive another port"):
            RunMetrics().serve(Metrics(port=port))
