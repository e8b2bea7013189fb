"""Lines of `metrics.jsonl` that are of several steps: smaller, and whoever reads them comes to the same sums."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from launch.pages.series import RunSeries, read_series
from tests.observing.clock import Clock
from tests.observing.recorders import read_steps, recorder, report
from workers.coordinator import recorder as recorder_module
from workers.coordinator.step_lines import StepLines, joined, without_nulls
from workers.observing.goodput import AttemptStart, Goodput
from workers.observing.history_file import drop_steps, each_step, sampled_steps

STEPS = 22
LOSSES = [3.0, 2.0, 9.0, 1.0, 0.5, None, 0.25]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch, recorder_module)


def train(folder: Path, clock: Clock, *ends: int, start: int = 0, until: int = STEPS) -> dict[str, Any]:
    """Two stages, whose losses repeat after seven steps; returns what the report of the run has of them."""
    folder.mkdir(exist_ok=True)
    with recorder(folder, STEPS, start=start, goodput=Goodput(AttemptStart(clock.now)), line_ends=ends) as joined:
        for step in range(start, until):
            joined.batch_sent(step, 0, 64, 2)
            clock.now += 0.5
            mine, norm = step - start + 1, 4.0 + step if step % 5 == 0 else None
            for stage in (1, 2):
                spent = {"busy": 1.0 * mine, "copying": 0.25 * mine * stage, "flops": 1e12 * mine}
                measured = {"linear": 0.1 * step} if step % 3 == 0 else {}
                values = {"loss": LOSSES[step % 7], "gradient_norm": norm, "online": measured, **spent}
                joined.stage_report(report(stage, step, **values))
    return {name: value for name, value in joined.report().items() if name != "seconds"}  # of a real clock


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def series(folder: Path) -> RunSeries:
    return read_series(each_step(folder / "metrics.jsonl", []))


def test_a_line_has_sums_last_values_and_the_largest_loss(tmp_path: Path, clock: Clock) -> None:
    train(tmp_path, clock, 4)
    found = lines(tmp_path)
    assert [line["step"] for line in found] == [0, 3, 7, 11, 15, 19, 21], "the first one's length is not known"
    assert [line.get("steps", 1) for line in found] == [1, 3, 4, 4, 4, 4, 2], "the last ends with the run"
    second, third = found[1], found[2]
    assert (second["images"], second["added"]["seconds"]) == (3 * 64, 1.5)
    stage = second["stages"][1]
    assert (stage["loss"], stage["loss_max"]) == (1.0, 9.0)
    assert stage["added"] == {"busy": 3.0, "copying": 1.5, "flops": 3e12}
    assert (stage["busy"], stage["copying"]) == (4.0, 2.0), "totals are those of the last step"
    assert stage["online"] == {"linear": pytest.approx(0.3)}
    assert "gradient_norm" not in stage
    assert third["stages"][0]["gradient_norm"] == 9.0, "of step 5, the last that was measured"
    assert third["stages"][0]["online"] == {"linear": pytest.approx(0.6)}
    assert (third["stages"][0]["loss"], third["stages"][0]["loss_max"]) == (3.0, 3.0), "that of step 5 was not finite"


@pytest.mark.parametrize("every", [1, 4])
def test_no_line_has_a_null(tmp_path: Path, clock: Clock, every: int) -> None:
    train(tmp_path, clock, every)
    assert "null" not in (tmp_path / "metrics.jsonl").read_text()
    assert without_nulls({"a": None, "b": [{"c": None, "d": 0}], "e": ""}) == {"b": [{"d": 0}], "e": ""}


def test_a_reader_comes_to_the_same_sums_and_the_file_is_smaller(tmp_path: Path, clock: Clock) -> None:
    reports = [train(tmp_path / str(every), clock, every) for every in (1, 4)]
    assert reports[0] == reports[1]
    whole, thin = (series(tmp_path / name) for name in "14")
    assert whole.count == thin.count == STEPS
    assert np.nansum(whole.images) == np.nansum(thin.images) == 64 * STEPS
    for stage in (1, 2):
        assert whole.stages[stage].shares() == thin.stages[stage].shares()
        assert whole.stages[stage].total("flops") == thin.stages[stage].total("flops") == STEPS * 1e12
        assert whole.stages[stage].last("loss") == thin.stages[stage].last("loss")
    small, large = ((tmp_path / name / "metrics.jsonl").stat().st_size for name in "41")
    assert small < large / 2


def test_a_snapshot_ends_a_line_and_a_later_attempt_goes_on_from_there(tmp_path: Path, clock: Clock) -> None:
    first = tmp_path / "run"
    train(first, clock, 8, 5, until=13)  # it was killed after step 12, and goes on from step 10
    assert [line["step"] for line in lines(first)] == [0, 4, 7, 9, 12]
    drop_steps(first / "metrics.jsonl", 10)
    found = train(first, clock, 8, 5, start=10)
    assert [line["step"] for line in lines(first)] == [0, 4, 7, 9, 10, 14, 15, 19, 21]
    assert sum(line.get("steps", 1) for line in lines(first)) == STEPS
    assert found["images"] == STEPS * 64
    assert [stage["busy_seconds"] for stage in found["stages"]] == [STEPS, STEPS], "of both attempts"
    assert [line["step"] for line in sampled_steps(first / "metrics.jsonl", 10)] == [0, 4, 7, 9], "for the page"


def test_what_was_trained_again_is_withdrawn(tmp_path: Path, clock: Clock) -> None:
    """With restart=job the file still has the lines of the attempt that failed."""
    train(tmp_path, clock, 4, 10, until=15)
    train(tmp_path, clock, 4, 10, start=10)
    found = series(tmp_path)
    assert (found.count, found.stages[1].total("flops")) == (STEPS, STEPS * 1e12)


def test_stages_that_ended_within_the_line_keep_their_last_values(tmp_path: Path) -> None:
    """In mode sequential not every stage does every step."""
    one, other = (
        {"step": step, "images": 8, "added": {"seconds": 1.0}, "stages": [{"stage": stage, "loss": 1.0, "added": {}}]}
        for step, stage in ((1, 2), (2, 1))
    )
    assert [stage["stage"] for stage in joined(one, other)["stages"]] == [1, 2]


def test_what_is_held_is_written_at_the_end_and_only_once(tmp_path: Path) -> None:
    written = StepLines(tmp_path / "metrics.jsonl", [10])
    for step in range(3):
        line = {"step": step, "time": 1.0, "images": 8, "added": {"seconds": 1.0}, "stages": []}
        written.add(line)
    assert lines(tmp_path) == []
    written.close()
    written.close()
    (found,) = read_steps(tmp_path / "metrics.jsonl")[0]
    assert (found["step"], found["steps"], found["images"]) == (2, 3, 24)
