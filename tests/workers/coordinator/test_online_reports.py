"""What is measured while training, on its way: into a report, the metrics, the terminal and the last words of a run."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from pipeline.stage.report import StageReport
from tests.observing.recorders import recorder
from workers.control.step_report import StageTimes, StepReport
from workers.control.validation import MalformedMessage
from workers.feed import FeedMeasures
from workers.observing.active_alarms import ActiveAlarms
from workers.observing.metrics import RunMetrics


def reported(stage: int, step: int, online: Any) -> StepReport:
    return StageTimes().report(stage, step, StageReport(0.5), 0, 0, online)


def gauges(metrics: RunMetrics) -> dict[tuple[str, ...], float]:
    families = metrics.registry.collect()
    return {(s.name, *(s.labels[key] for key in sorted(s.labels))): s.value for f in families for s in f.samples}


def test_a_report_says_what_was_measured() -> None:
    report = reported(2, 3, {"linear": 0.25, "rankme": float("inf")})
    message = json.loads(json.dumps(report.to_message()))
    assert message["online"] == {"linear": 0.25, "rankme": None}
    assert StepReport.from_message(message) == report
    del message["online"]
    assert StepReport.from_message(message).online == {}


@pytest.mark.parametrize(
    "online", [{"linear": "0.5"}, {"accuracy": 0.5}, {"linear": float("nan")}, {"lidar": [1.0]}, [], None, {"": 1.0}]
)
def test_a_report_says_nothing_else(online: object) -> None:
    message = {**reported(1, 0, {}).to_message(), "online": online}
    with pytest.raises(MalformedMessage, match="without a valid 'online"):
        StepReport.from_message(message)


def test_the_metrics_keep_what_was_measured_last() -> None:
    metrics = RunMetrics(ActiveAlarms())
    metrics.stage_report(
        reported(1, 0, {"linear": 0.1, "knn": 0.2, "rankme": 5.0, "lidar": 4.0, "collapse": 0.3}), 100.0
    )
    metrics.stage_report(reported(1, 1, {"linear": 0.5, "alpha": 1.5, "alpha_r2": 0.9, "lidar": float("nan")}), 100.0)
    metrics.stage_report(reported(2, 0, {}), 100.0)
    found = gauges(metrics)
    assert found["onward_probe_accuracy_ratio", "linear", "0", "1"] == 0.5
    assert found["onward_probe_accuracy_ratio", "knn", "0", "1"] == 0.2
    assert found["onward_representation_rank", "0", "1"] == 5.0
    assert found["onward_collapse_level", "0", "1"] == 0.3
    assert found["onward_lidar", "0", "1"] == 4.0
    assert found["onward_alpha_req", "0", "1"] == 1.5
    assert found["onward_alpha_req_r2", "0", "1"] == 0.9
    of_others = [key for key in found if key[-1] == "2" and "probe" in key[0]]
    assert not of_others, "a stage that measures nothing has no such numbers"


def test_steps_left_out_count_once_though_a_stage_comes_back() -> None:
    metrics = RunMetrics(ActiveAlarms())
    for step, skipped in enumerate([1, 1, 3]):
        metrics.stage_report(reported(1, step, {"skipped": skipped}), 100.0)
    for step, skipped in ((1, 1), (2, 3), (3, 4)):
        metrics.stage_report(reported(1, step, {"skipped": skipped}), 100.0)
    assert gauges(metrics)["onward_online_skipped_steps_total", "0", "1"] == 4


def recorded(tmp_path: Path, reports: list[StepReport]) -> tuple[str, list[str], list[dict[str, Any]]]:
    """The terminal, the notes at the end, and the lines of `metrics.jsonl`."""
    written = StringIO()
    tmp_path.mkdir(exist_ok=True)
    with recorder(tmp_path, 1, written) as joined:
        joined.feed = FeedMeasures()
        joined.batch_sent(0, 0, 64, len(reports))
        for report in reports:
            joined.stage_report(report)
        notes = joined.notes()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    return written.getvalue(), notes, [json.loads(line) for line in lines]


def test_the_line_shows_the_probe_or_the_neighbours_and_nothing_where_there_are_none(tmp_path: Path) -> None:
    shown, notes, _ = recorded(
        tmp_path, [reported(1, 0, {"linear": 0.1234, "knn": 0.9}), reported(2, 0, {"knn": 0.5}), reported(3, 0, {})]
    )
    assert "probe 12.3 50.0 - %" in shown
    assert notes == []
    shown, _, (line,) = recorded(tmp_path / "none", [reported(1, 0, {})])
    assert "probe" not in shown
    assert "online" not in line["stages"][0]


def test_the_end_of_a_run_tells_of_steps_that_were_left_out(tmp_path: Path) -> None:
    _, notes, (line,) = recorded(tmp_path, [reported(1, 0, {"skipped": 3}), reported(2, 0, {"linear": 0.5})])
    assert notes == ["stage 1: its features were not finite at 3 steps, which online measures left out"]
    assert line["stages"][0]["online"] == {"skipped": 3}
