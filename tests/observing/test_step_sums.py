"""What steps have come to: without the first one, apart by how far batches go, and over the last seconds."""

from __future__ import annotations

import pytest

from tests.observing.headrooms import line
from workers.observing.step_sums import StepSums


def test_the_first_step_warms_up_and_is_in_no_sum() -> None:
    sums = StepSums(20.0)
    sums.add(line(0, {"busy": 9.0}), {"images": 8, "decode": 5.0}, 0.0)
    assert sums.whole() == sums.recent() == []
    for step in (1, 2):
        sums.add(line(step, {"busy": 0.5, "wait_input": 0.25}), {"images": 8, "decode": 0.5, "crop": 0.25}, float(step))
    (found,) = sums.whole()
    assert found.run == {"steps": 2, "images": 16, "lost": 0.0, "feed_images": 16, "feed_seconds": 1.5}
    assert found.stages == {1: {"busy": 1.0, "wait_input": 0.5, "wait_output": 0.0, "copying": 0.0, "link_bytes": 0.0}}


def test_steps_that_go_no_further_than_a_stage_are_a_phase_of_their_own() -> None:
    sums = StepSums(20.0)
    for step in range(6):
        stages = [{"busy": 1.0}] if step < 3 else [{"busy": 0.25}, {"busy": 0.5}]
        sums.add(line(step, *stages), {}, float(step))
    first, second = sums.whole()
    assert [first.run["steps"], second.run["steps"]] == [2, 3]
    assert [first.stages.keys(), second.stages.keys()] == [{1}, {1, 2}]
    assert (first.stages[1]["busy"], second.stages[1]["busy"], second.stages[2]["busy"]) == (2.0, 0.75, 1.5)


@pytest.mark.parametrize("apart", [0.25, 1.0, 8.0, 100.0])
def test_a_window_has_the_last_seconds_and_one_step_at_least(apart: float) -> None:
    sums = StepSums(20.0)
    for step in range(400):
        sums.add(line(step, {"busy": 0.1 if step < 300 else 0.2}), {}, apart * step)
    (recent,), (whole,) = sums.recent(), sums.whole()
    steps = recent.run["steps"]
    assert steps * apart <= 20.0 or steps == 1
    assert (steps + 1) * apart > 20.0 - 1.0
    assert recent.stages[1]["busy"] == pytest.approx(0.2 * steps)
    assert whole.run["steps"] == 399


def test_a_phase_that_is_over_leaves_the_window() -> None:
    sums = StepSums(3.0)
    for step in range(9):
        sums.add(line(step, *[{"busy": 1.0}] * (1 + (step >= 4))), {}, float(step))
    (recent,) = sums.recent()
    assert recent.stages.keys() == {1, 2}
    assert len(sums.whole()) == 2


def test_what_a_replaced_process_took_to_come_back_is_lost() -> None:
    sums = StepSums(20.0)
    for step, now, seconds in ((0, 0.0, None), (1, 1.0, 1.0), (2, 7.0, None), (3, 8.0, 1.0)):
        sums.add(line(step, {"busy": 0.5}, seconds=seconds), {}, now)
    (found,) = sums.whole()
    assert (found.run["lost"], found.run["steps"]) == (6.0, 3), "nothing of the start is lost"
