"""As many steps as there is time for, and the whole batch from them."""

from __future__ import annotations

import pytest
import torch

from launch.partition.finest import cut_everywhere
from launch.partition.timed_series import StepSeries, TimedSteps
from launch.partition.timed_steps import TimedStage
from pipeline.stage.stage import Stage
from tests.launch.partition.small_runs import small_run, ticking


def series(seconds: float) -> StepSeries:
    stage = Stage(cut_everywhere(small_run()), 1, 1000)
    views = [torch.randint(0, 256, (3, 16, 16, 3), dtype=torch.uint8) for _ in range(2)]
    return StepSeries(
        TimedStage(stage, ticking()), views, batch=8, norms_every=0, labelled=False, seconds=seconds
    )  # fmt: skip


def test_a_whole_batch_is_between_a_line_and_a_power() -> None:
    fewer = TimedSteps(batch=16, rows=8, steps=[{"unit": 6.0, "head": 1.0}])
    steps = TimedSteps(batch=32, rows=16, steps=[{"unit": 10.0, "head": 2.0}], fewer=fewer)
    line, power = 10 + 16 * 4 / 8, 10 * 10 / 6  # twice the images, twice
    assert steps.of_image("unit") == pytest.approx((line + power) / 2 / 32)
    assert steps.of_image("head") == pytest.approx(2 / 16), "in proportion, so both are the same"
    assert steps.of_image("loss") == 0


def test_what_takes_more_than_in_proportion_is_no_power() -> None:
    fewer = TimedSteps(batch=16, rows=8, steps=[{"unit": 4.0}])
    steps = TimedSteps(batch=32, rows=16, steps=[{"unit": 10.0}], fewer=fewer)
    assert steps.of_image("unit") == pytest.approx(((10 + 16 * 6 / 8) + 20) / 2 / 32)


def test_what_takes_less_with_more_images_is_taken_as_it_is() -> None:
    fewer = TimedSteps(batch=16, rows=8, steps=[{"unit": 9.0}])
    assert TimedSteps(batch=64, rows=16, steps=[{"unit": 1.0}], fewer=fewer).of_image("unit") == 1 / 16


def test_of_several_steps_the_middle_one_counts() -> None:
    steps = TimedSteps(batch=4, rows=4, steps=[{"unit": 4.0}, {"unit": 40.0}, {"unit": 8.0}])
    assert steps.of_image("unit") == 2


def test_a_step_has_its_share_of_the_norms_that_some_steps_measure() -> None:
    steps = [{"optimizer": 7.0}, {"optimizer": 3.0}, {"optimizer": 3.0}]
    assert TimedSteps(batch=4, rows=4, steps=steps, norms_every=4).of_step("optimizer") == 3 + 4 / 4
    assert TimedSteps(batch=4, rows=4, steps=steps[1:], norms_every=0).of_step("optimizer") == 3


@pytest.mark.parametrize(("seconds", "rows"), [(0.0, 4), (1e9, 8)])
def test_without_time_few_images_are_timed(seconds: float, rows: int) -> None:
    inside, beginning = series(seconds).run(True, False)
    assert inside.rows == beginning.rows == rows
    assert inside.of_image("unit") == 2 / rows, "two views, each of a second by that clock"


def test_where_there_is_no_room_few_images_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launch.partition.timed_series.available_memory", lambda: 3)
    (steps,) = series(1e9).run(True)
    assert steps.rows == 4
