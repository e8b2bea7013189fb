"""What is measured beside the training reaches whoever looks: the metrics, the lines of the run, and its trace."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from tests.observing.recorders import recorder, report
from workers.serial_run import _Training


def test_what_a_snapshot_took_is_in_the_metrics_and_in_the_next_line(tmp_path: Path) -> None:
    with recorder(tmp_path, 2) as joined:
        joined.snapshot_written(2, 0.25)
        joined.batch_sent(0, 0, 8, 4)
        for stage in range(1, 5):
            joined.stage_report(report(stage, 0))
        registry = joined.metrics.registry
    labels = {"stage": "2", "replica": "0"}
    assert registry.get_sample_value("onward_snapshot_seconds_count", labels) == 1
    assert registry.get_sample_value("onward_snapshot_seconds_sum", labels) == 0.25
    stages = json.loads((tmp_path / "metrics.jsonl").read_text())["stages"]
    assert [stage.get("snapshot_seconds") for stage in stages] == [None, 0.25, None, None]


def test_the_probe_of_a_stage_has_a_span_of_its_own_in_the_trace() -> None:
    """Only where something is measured: an empty span would look like time."""
    spans: list[tuple[str, str]] = []

    @contextmanager
    def span(track: str, name: str) -> Iterator[None]:
        spans.append((track, name))
        yield

    training: Any = SimpleNamespace(trace=SimpleNamespace(span=span))
    measured = cast(
        Any, SimpleNamespace(index=2, online=SimpleNamespace(measure=lambda step, labels: {"linear": step}))
    )
    assert _Training._measure_online(training, measured, 3, None) == {"linear": 3}
    assert _Training._measure_online(training, cast(Any, SimpleNamespace(index=1, online=None)), 3, None) is None
    assert spans == [("stage 2", "probe")]
