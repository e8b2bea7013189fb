"""The metrics as Prometheus reads them, through its own parser, and the catalogue that they are made from."""

from __future__ import annotations

import urllib.request
from dataclasses import replace
from math import isnan
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.config import MetricsConfig
from tests.observing.recorders import facts, recorder
from tests.observing.recorders import report as a_report
from tests.runs import ROOT
from tests.waiting import LIMIT
from workers.control.step_report import StepReport
from workers.feed import FeedMeasures
from workers.observing.active_alarms import ActiveAlarms
from workers.observing.amounts import STAGE_TOTALS
from workers.observing.catalogue import CATALOGUE, STAGE, reference
from workers.observing.live import History, LiveServer
from workers.observing.metrics import RunMetrics
from workers.observing.observer import ALARMS, Event, Observers

OF_RUN = {"onward_samples_total": 128, "onward_epoch": 3, "onward_images_per_second": 12.5, "onward_run_steps": 6}
"""What is served of the run that is made up below."""
Values = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def report(stage: int, step: int, busy: float) -> StepReport:
    terms = {"on_diagonal": 20.0, "off_diagonal": None}
    return StepReport(
        stage,
        step,
        loss=0.5,
        terms=terms,
        learning_rate=0.1,
        skipped=2,
        busy=busy,
        wait_input=0.25,
        wait_output=0.125,
        queue_depth=2,
        link_bytes=1000,
        gradient_norm=3.0 if step == 0 else None,
        update_norm=0.25,
        memory_bytes=2**30,
        cuda_bytes=2**29,
        cuda_peak_bytes=2**28,
        peak_flops=312e12,
        throttled=["power_cap"],
    )


def line(step: int) -> dict[str, object]:
    return {"step": step, "epoch": 3, "images": 64, "images_per_second": 12.5, "eta_seconds": None, "stages": []}


def scrape(url: str) -> Values:
    with urllib.request.urlopen(url, timeout=LIMIT) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    assert all(family.documentation for family in families)
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def held(metrics: RunMetrics) -> Values:
    families = metrics.registry.collect()
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def test_everything_a_run_reports_is_served(tmp_path: Path) -> None:
    metrics = RunMetrics(ActiveAlarms())
    metrics.run_started(facts(tmp_path / "my_run", 6))
    for step, busy in enumerate([1.0, 2.5]):
        for stage in (1, 2):
            metrics.stage_report(report(stage, step, busy), 1000.0 + step)
            spent = {"busy": 1.25, "wait_input": 0.125, "wait_output": 0.0625, "copying": 0.03125}
            metrics.add(stage, {**spent, "skipped": 1, "link_bytes": 500, "flops": 2e12, "alloc_retries": 1})
        feed = {"wait_seconds": 0.5, "images": 96, "restarts": step, "skipped": 3 * step, "decode": 1.0, "blur": 0.5}
        metrics.feed_measured(FeedMeasures(seconds={"decode": 9.0, "blur": 9.0}, memory_bytes=4096), feed)
        metrics.step_done(line(step))
    metrics.snapshot_written(2, 0.2)
    with LiveServer(MetricsConfig(), metrics.registry, History(ActiveAlarms())) as server:
        values = scrape(server.metrics_url)
    stage = (("replica", "0"), ("stage", "2"))
    assert {name: values[name, ()] for name in OF_RUN} == OF_RUN
    assert values["onward_feed_wait_seconds_total", ()] == 1.0
    assert values["onward_feed_images_total", ()] == 192
    assert values["onward_feed_seconds_total", (("part", "decode"),)] == 2.0
    assert values["onward_feed_seconds_total", (("part", "blur"),)] == 1.0
    assert values["onward_feed_restarts_total", ()] == 1
    assert values["onward_feed_skipped_total", ()] == 3
    assert values["onward_feed_memory_bytes", ()] == 4096
    assert values["onward_step", stage] == 1
    assert values["onward_stage_last_report_timestamp_seconds", stage] == 1001.0
    assert values["onward_stage_busy_seconds_total", stage] == 2.5
    assert values["onward_stage_wait_seconds_total", (("direction", "input"), *stage)] == 0.25
    assert values["onward_stage_wait_seconds_total", (("direction", "output"), *stage)] == 0.125
    assert values["onward_stage_copy_seconds_total", stage] == 0.0625
    assert values["onward_stage_flops_total", stage] == 4e12
    assert values["onward_device_peak_flops", stage] == 312e12
    assert values["onward_allocator_retries_total", stage] == 2
    assert values["onward_link_bytes_total", stage] == 1000
    assert values["onward_link_queue_depth", stage] == 2
    assert values["onward_link_capacity", stage] == 2
    assert values["onward_skipped_steps_total", stage] == 2
    assert values["onward_learning_rate", stage] == 0.1
    assert values["onward_gradient_norm", stage] == 3.0, "until it is measured again"
    assert values["onward_update_norm", stage] == 0.25
    kinds = [values["onward_process_memory_bytes", (("kind", kind), *stage)] for kind in ("cpu", "cuda", "cuda_peak")]
    assert kinds == [2**30, 2**29, 2**28]
    assert values["onward_snapshot_seconds_count", stage] == 1
    assert values["onward_snapshot_seconds_sum", stage] == 0.2
    assert values["onward_objective_loss", (*stage, ("term", "total"))] == 0.5
    assert values["onward_objective_loss", (*stage, ("term", "on_diagonal"))] == 20.0
    not_finite = ("onward_objective_loss", (*stage, ("term", "off_diagonal")))
    assert not_finite not in values, "what is not finite is no number"
    (info,) = [dict(labels) for name, labels in values if name == "onward_run_info"]
    assert (info["run"], info["mode"], info["link"]) == ("my_run", "simultaneous", "queue")
    assert (info["objective"], info["backbone"]) == ("barlow_twins", "resnet18")


def test_bound_and_prediction_are_no_number_until_they_are_known() -> None:
    metrics = RunMetrics(ActiveAlarms())
    names = ("onward_bound_images_per_second", "onward_predicted_images_per_second")
    metrics.step_done(line(0))
    assert all(isnan(held(metrics)[name, ()]) for name in names)
    metrics.step_done({**line(1), "bound_images_per_second": 64.0, "predicted_images_per_second": 32.0})
    metrics.step_done({**line(2), "bound_images_per_second": 64.0})
    assert [held(metrics)[name, ()] for name in names] == [64.0, 32.0]


def test_memory_of_a_gpu_stands_beside_that_of_the_process() -> None:
    """No other test of a whole run can have any, where there is no GPU."""
    metrics = RunMetrics(ActiveAlarms())
    metrics.stage_report(replace(report(1, 0, 1.0), cuda_bytes=2**20, cuda_peak_bytes=None), 0.0)
    found = {labels: value for (name, labels), value in held(metrics).items() if name == "onward_process_memory_bytes"}
    kinds = {dict(labels)["kind"]: value for labels, value in found.items()}
    assert kinds == {"cpu": 2**30, "cuda": 2**20}


def test_what_slows_a_gpu_down_is_one_of_five_gauges_where_it_is_known() -> None:
    metrics = RunMetrics(ActiveAlarms())
    seen = []
    for step, throttled in enumerate((None, ["hw_thermal"], [])):
        metrics.stage_report(replace(report(1, step, 1.0), throttled=throttled), 0.0)
        found = {labels: v for (name, labels), v in held(metrics).items() if name == "onward_device_throttled"}
        values = {dict(labels)["reason"]: value for labels, value in found.items()}
        seen.append((len(values), [reason for reason, value in values.items() if value]))
    assert seen == [(0, []), (5, ["hw_thermal"]), (5, [])]


def test_what_is_rare_is_there_from_the_start(tmp_path: Path) -> None:
    """Prometheus sees no increase of a counter that begins later."""
    metrics = RunMetrics(ActiveAlarms())
    metrics.run_started(facts(tmp_path))
    values = held(metrics)
    for name in ("onward_restarts_total", "onward_skipped_steps_total", "onward_online_skipped_steps_total"):
        found = {labels: value for (known, labels), value in values.items() if known == name}
        assert found == {(("replica", "0"), ("stage", str(stage))): 0.0 for stage in range(1, 5)}
    for name in ALARMS:
        assert values["onward_alarm", (("alarm", name),)] == 0
        assert values["onward_alarms_total", (("alarm", name),)] == 0


def test_a_run_of_one_process_has_no_links(tmp_path: Path) -> None:
    metrics = RunMetrics(ActiveAlarms())
    metrics.run_started(facts(tmp_path, runtime="serial"))
    metrics.stage_report(report(2, 0, 1.0), 0.0)
    metrics.add(2, dict.fromkeys(STAGE_TOTALS, 1.0))
    values = held(metrics)
    assert not [name for name, _ in values if name.startswith("onward_link_")]
    assert [dict(labels)["link"] for name, labels in values if name == "onward_run_info"] == ["none"]


def test_there_is_no_link_within_a_process(tmp_path: Path) -> None:
    metrics = RunMetrics(ActiveAlarms())
    metrics.run_started(facts(tmp_path, processes=2))
    for stage in range(1, 5):
        metrics.stage_report(report(stage, 0, 1.0), 0.0)
        metrics.add(stage, dict.fromkeys(STAGE_TOTALS, 1.0))
    found: dict[str, set[str]] = {}
    for name, labels in held(metrics):
        if name.startswith("onward_link_"):
            found.setdefault(name, set()).add(dict(labels)["stage"])
    inputs, outputs = {"1", "3"}, {"2"}  # the last stage sends nothing
    assert found == {
        "onward_link_capacity": inputs, "onward_link_queue_depth": inputs, "onward_link_bytes_total": outputs,
    }  # fmt: skip


def test_before_the_run_has_begun_nobody_knows_when_it_ends() -> None:
    """The page is served while the data set is opened, which may take minutes."""
    assert isnan(held(RunMetrics(ActiveAlarms()))["onward_eta_seconds", ()])


def test_an_alarm_is_raised_while_any_stage_has_it() -> None:
    active = ActiveAlarms()
    metrics = RunMetrics(active)

    def say(kind: str, stage: int) -> tuple[float, float]:
        Observers([metrics], print, active.event).event(
            Event(time=0.0, kind=kind, name="collapse", stage=stage, step=1, text=".")
        )  # type: ignore[arg-type]
        values, labels = held(metrics), (("alarm", "collapse"),)
        return values["onward_alarm", labels], values["onward_alarms_total", labels]

    assert say("alarm", 1) == (1, 1)
    assert say("alarm", 2) == (1, 2)
    assert say("cleared", 1) == (1, 2)
    assert say("cleared", 2) == (0, 2)


def test_a_step_that_is_skipped_once_more_after_a_restart_counts_once(tmp_path: Path) -> None:
    made, stage = recorder(tmp_path, 6), (("replica", "0"), ("stage", "1"))

    def skipped(*told: tuple[int, int]) -> float:
        for step, total in told:
            made.stage_report(a_report(1, step, skipped=total))
        return held(made.metrics)["onward_skipped_steps_total", stage]

    for step in range(6):
        made.batch_sent(step, 0, 64, 2)
    with made:
        assert skipped((0, 0), (1, 0), (2, 1), (3, 2)) == 2
        made.metrics.event(Event(time=0.0, kind="restart", name="restart", stage=1, step=1, text="."))
        assert skipped((1, 0), (2, 1), (3, 2)) == 2, "the same steps as before"
        assert skipped((4, 2)) == 2
        assert skipped((5, 3)) == 3


def test_what_is_not_in_the_catalogue_cannot_be_made() -> None:
    with pytest.raises(KeyError):
        RunMetrics(ActiveAlarms())._set("onward_moon_phase", 0.5)
    families = {family.name for family in RunMetrics(ActiveAlarms()).registry.collect()}
    assert families == {metric.name.removesuffix("_total") for metric in CATALOGUE}


def test_the_catalogue_keeps_the_rules_of_naming() -> None:
    assert len({metric.name for metric in CATALOGUE}) == len(CATALOGUE)
    for metric in CATALOGUE:
        assert metric.name.startswith("onward_")
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        stem = metric.name.removesuffix("_total")
        for unit in ("seconds", "bytes", "ratio"):
            if metric.unit == unit:
                assert stem.endswith(f"_{unit}"), f"{metric.name} is measured in {unit}"
        assert metric.labels[:2] == STAGE or "stage" not in metric.labels
        assert not metric.help.endswith("."), "it is a phrase, not a sentence"


def test_the_page_about_metrics_is_up_to_date() -> None:
    page = (ROOT / "deploy" / "metrics.md").read_text()
    assert page == reference(), "run: python -m workers.observing.catalogue > deploy/metrics.md"
