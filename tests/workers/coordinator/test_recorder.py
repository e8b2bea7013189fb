"""What each step took is in its line, and `report.json` adds up the whole run, whoever was replaced meanwhile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.observing.clock import Clock
from tests.observing.recorders import read_steps, recorder, report
from workers.control.feed_report import FeedMeasures
from workers.coordinator import recorder as recorder_module
from workers.coordinator.recorder import ADVICE_SHARE, Recorder


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch, recorder_module)


def take(joined: Recorder, clock: Clock, step: int, busy: float, **others: Any) -> None:
    """Of a run with one stage: a step that ends half a second after the one before."""
    if step not in joined._batches and (1 not in joined.latest or step > joined.latest[1].step):
        joined.batch_sent(step, 0, 64, 1)
    clock.now += 0.5
    joined.stage_report(report(1, step, busy=busy, link_bytes=0, **others))


def added(folder: Path) -> list[dict[str, float]]:
    return [line["stages"][0]["added"] for line in read_steps(folder / "metrics.jsonl")[0]]


def test_a_stage_that_comes_back_busier_than_it_left_took_no_longer_for_its_next_step(
    tmp_path: Path, clock: Clock
) -> None:
    """It has gone through two slow steps again, so its totals did not fall; a line said that one step took 3 s."""
    with recorder(tmp_path, 5) as joined:
        for step in range(3):
            take(joined, clock, step, busy=step + 1.0, skipped=min(step, 1))
        joined.restarted([1])
        take(joined, clock, 1, busy=2.0, skipped=1)
        take(joined, clock, 2, busy=4.0, skipped=1)
        take(joined, clock, 3, busy=5.0, skipped=2)
        take(joined, clock, 4, busy=6.0, wait_input=0.25, skipped=2)
        (stage,) = joined.report()["stages"]
    assert added(tmp_path) == [
        {"busy": 1.0}, {"busy": 1.0, "skipped": 1}, {"busy": 1.0}, {"busy": 1.0, "skipped": 1},
        {"busy": 1.0, "wait_input": 0.25},
    ]  # fmt: skip
    lines, _ = read_steps(tmp_path / "metrics.jsonl")
    assert [line["added"].get("seconds") for line in lines] == [None, 0.5, 0.5, None, 0.5], "one was not a step's"
    assert (stage["busy_seconds"], stage["skipped"]) == (9.0, 2), "what was done twice was done"
    assert stage["wait_input"] == pytest.approx(0.25 / 9.25)
    registry = joined.metrics.registry
    assert registry.get_sample_value("onward_stage_busy_seconds_total", {"stage": "1", "replica": "0"}) == 9.0


def test_utilisation_is_that_of_the_rate_of_images_and_stands_only_where_it_is_known(
    tmp_path: Path, clock: Clock
) -> None:
    with recorder(tmp_path, 4) as joined:
        for step in range(4):
            take(joined, clock, step, 1.0, flops=2e12 * (step + 1), peak_flops=32e12, cuda_peak_bytes=7)
        values = joined.report()
    (stage,), images = values["stages"], values["images"]
    wanted, found = values["images_per_second"] * 8e12 / images, stage["flops_per_second"]
    assert [found, stage["mfu"]] == pytest.approx([wanted, wanted / 32e12])
    lines, _ = read_steps(tmp_path / "metrics.jsonl")
    last = lines[-1]["stages"][0]
    assert (last["flops"], last["added"]["flops"], last["peak_flops"], last["cuda_peak_bytes"]) == (
        8e12,
        2e12,
        32e12,
        7,
    )
    assert "alloc_retries" not in last

    with recorder(tmp_path, 1) as joined:
        take(joined, clock, 0, 1.0)
        (stage,) = joined.report()["stages"]
    known = {"flops_per_second", "mfu"} & stage.keys()
    assert not known, "not counted: the stage is compiled"


def test_a_stage_that_is_replaced_right_after_a_snapshot_repeats_nothing(tmp_path: Path, clock: Clock) -> None:
    """Only that it was replaced tells: its first step was as slow as all before it together."""
    with recorder(tmp_path, 3) as joined:
        take(joined, clock, 0, busy=1.0)
        take(joined, clock, 1, busy=1.5)
        joined.restarted([1])
        take(joined, clock, 2, busy=2.0)
    assert added(tmp_path) == [{"busy": 1.0}, {"busy": 0.5}, {"busy": 2.0}]
    assert "seconds" not in read_steps(tmp_path / "metrics.jsonl")[0][2]["added"]


def test_the_feed_of_a_stage_that_is_replaced_begins_anew_and_its_report_does_not(tmp_path: Path, clock: Clock) -> None:
    with recorder(tmp_path, 4) as joined:
        for step, (images, waited) in enumerate([(64, 1.0), (128, 1.5), (64, 2.0), (128, 2.0)]):
            if step == 2:
                joined.restarted([1])
            seconds = {"decode": images / 64, "crop": 0.0}
            take(
                joined,
                clock,
                step,
                1.0,
                feed=FeedMeasures(wait_seconds=waited, images=images, seconds=seconds, memory_bytes=7, workers=2),
            )
        feed = joined.report()["feed"]
    lines, _ = read_steps(tmp_path / "metrics.jsonl")
    assert [line["added"].get("feed_wait_seconds", 0) for line in lines] == [1.0, 0.5, 2.0, 0]
    assert (feed["images"], feed["wait_seconds"], feed["seconds"]["decode"]) == (256, 3.5, 4.0)
    assert (feed["memory_bytes"], feed["workers"]) == (7, 2)
    assert joined.metrics.registry.get_sample_value("onward_feed_images_total") == 256


@pytest.mark.parametrize("earlier_version", [False, True])
def test_the_report_of_a_run_that_went_on_is_about_all_of_it(
    tmp_path: Path, clock: Clock, earlier_version: bool
) -> None:
    """It said how the last attempt had gone: of a run that was stopped before its last step, one step."""
    with recorder(tmp_path, 4) as first:
        for step in range(3):
            take(first, clock, step, busy=step + 1.0, wait_output=step + 1.0, skipped=step)
    if earlier_version:
        path = tmp_path / "metrics.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for values in (*lines, *(line["stages"][0] for line in lines)):
            del values["added"]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    clock.now += 1000.0
    with recorder(tmp_path, 4, start=3) as second:
        take(second, clock, 3, busy=2.0, wait_input=2.0)
        found = second.report()
    (stage,) = found["stages"]
    assert (stage["busy_seconds"], stage["skipped"]) == (5.0, 2)
    assert [stage[name] for name in ("busy", "wait_input", "wait_output")] == [0.5, 0.2, 0.3]
    assert found["images"] == 4 * 64
    assert found["seconds"] == pytest.approx(second.progress.seconds + 2 * 0.5)


def test_a_clock_that_is_set_back_changes_no_length_of_a_step(tmp_path: Path, clock: Clock) -> None:
    with recorder(tmp_path, 2) as joined:
        take(joined, clock, 0, busy=1.0)
        clock.time = lambda: 5.0  # type: ignore[method-assign]
        take(joined, clock, 1, busy=2.0)
    assert read_steps(tmp_path / "metrics.jsonl")[0][1]["added"]["seconds"] == 0.5


def test_the_report_has_the_bound_and_what_the_rest_of_the_time_went_to(tmp_path: Path, clock: Clock) -> None:
    """Steps of half a second, of which stage 1 computes a quarter: 64 images in 0.125 s would be 512 a second."""
    with recorder(tmp_path, 9) as joined:
        for step in range(9):
            take(joined, clock, step, busy=0.125 * (step + 1), wait_input=0.375 * (step + 1))
        found = joined.report()
    bound, predicted = found["bound"], found["predicted"]
    most, rates = bound.pop("images_per_second"), ("bound_images_per_second", "predicted_images_per_second")
    reached, reason = found["images_per_second"] / most, bound.pop("reason")
    assert [most, *predicted.values()] == pytest.approx([512.0, 512.0]), "the feed says nothing of its time"
    assert bound == {"share": pytest.approx(reached), "stages": [1], "cause": "feed"}
    assert reason.startswith("stage 1 waits for images ")
    lines, _ = read_steps(tmp_path / "metrics.jsonl")
    told = [[line.get(name) for name in rates] for line in lines]
    assert [told[0], told[-1]] == [[None, None], [512.0, 512.0]]


def test_what_is_said_of_the_feed_is_said_once(tmp_path: Path, clock: Clock) -> None:
    with recorder(tmp_path, 25) as joined:
        for step in range(25):
            joined.feed = FeedMeasures(wait_seconds=0.25 * step, images=64 * step)
            take(joined, clock, step, busy=0.125 * (step + 1), wait_input=0.375 * (step + 1))
        reason = joined.report()["bound"]["reason"]
        assert joined.feed_wait_share > ADVICE_SHARE
        assert joined.notes() == []
    assert "raise data.workers (it is 0)" in reason


def test_a_replaced_process_costs_images_and_not_the_bound(tmp_path: Path, clock: Clock) -> None:
    with recorder(tmp_path, 9) as joined:
        for step in range(5):
            take(joined, clock, step, busy=0.5 * (step + 1))
        joined.restarted([1])
        clock.now += 10.0
        for step in range(3, 9):
            take(joined, clock, step, busy=0.5 * (step - 2))
        found = joined.report()["bound"]
    most = found["images_per_second"]
    assert (most, found["cause"]) == (pytest.approx(128.0), "restart")
