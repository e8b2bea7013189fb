"""The headroom of a run is kept up to date at little cost, and what fails there ends no run."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from tests.observing.clock import Clock
from tests.observing.headrooms import line
from tests.pipeline.small import small_config
from workers.observing import headroom_watch as module
from workers.observing.headroom_watch import EVERY_SECONDS, LEAST_STEPS, MOST_SHARE, HeadroomWatch

UNEVEN = [{"busy": 0.25}, {"busy": 0.5}, {"busy": 0.125}, {"busy": 0.125}]
TWICE_AS_SLOW = [{"busy": 2 * stage["busy"]} for stage in UNEVEN]
KNOWN = {"bound_images_per_second": 16.0, "predicted_images_per_second": 16.0}


class Stopwatch(Clock):
    """Whoever measures something by it finds that it has taken `cost` seconds."""

    cost = 0.0

    def perf_counter(self) -> float:
        self.now += self.cost
        return self.now


@pytest.fixture
def stopwatch(monkeypatch: pytest.MonkeyPatch) -> Stopwatch:
    return Stopwatch(monkeypatch, module)


def watched(window: float = 20.0) -> HeadroomWatch:
    return HeadroomWatch(small_config(), window)


def train(watch: HeadroomWatch, first: int, last: int, apart: float = 0.5, stages: Any = UNEVEN) -> list[Any]:
    """What is added to the line of each of these steps."""
    return [watch.step_done(line(step, *stages), {}, apart * step) for step in range(first, last)]


def bound(added: Any) -> float:
    """In the line that got this."""
    return float(added["bound_images_per_second"])


def test_it_says_nothing_of_a_few_steps(stopwatch: Stopwatch) -> None:
    watch = watched()
    assert train(watch, 0, LEAST_STEPS) == [{}] * LEAST_STEPS
    assert watch.latest is None
    assert train(watch, LEAST_STEPS, LEAST_STEPS + 2) == [KNOWN, KNOWN]


def test_it_is_renewed_every_few_seconds_for_the_last_ones(stopwatch: Stopwatch) -> None:
    watch, steps = watched(window=4.0), round(EVERY_SECONDS / 0.5)
    train(watch, 0, LEAST_STEPS + 1)
    after = LEAST_STEPS + 1 + steps
    told = train(watch, LEAST_STEPS + 1, after, stages=TWICE_AS_SLOW)
    assert told[:-1] == [KNOWN] * (steps - 1)
    assert 8.0 < bound(told[-1]) < 16.0
    assert bound(train(watch, after, after + 40, stages=TWICE_AS_SLOW)[-1]) == 8.0


def test_what_takes_long_comes_less_often(stopwatch: Stopwatch) -> None:
    stopwatch.cost = 1.0
    watch = watched()
    train(watch, 0, LEAST_STEPS + 1)
    first = watch.latest
    pause = round(1.0 / MOST_SHARE / 0.5)
    train(watch, LEAST_STEPS + 1, LEAST_STEPS + pause)
    assert watch.latest is first
    train(watch, LEAST_STEPS + pause, LEAST_STEPS + pause + 1)
    assert watch.latest is not first


def test_at_the_end_it_is_of_all_steps_but_the_first() -> None:
    watch = watched(window=2.0)
    train(watch, 0, 11)
    train(watch, 11, 21, stages=TWICE_AS_SLOW)
    found = watch.at_end(9.0)
    assert found is watch.latest is not None
    assert (found.measured, found.bound) == (9.0, pytest.approx(8 / 0.75))


def test_a_run_of_one_step_has_none() -> None:
    watch = watched()
    train(watch, 0, 1)
    assert watch.at_end(0.0) is None


def test_without_a_prediction_the_bound_is_told_and_the_failure_is_logged_once(
    stopwatch: Stopwatch, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arguments: Any) -> float:
        raise ZeroDivisionError

    monkeypatch.setattr(module, "predicted_rate", fail)
    watch = watched()
    with caplog.at_level(logging.ERROR):
        told = train(watch, 0, 40)
        found = watch.at_end(9.0)
    assert (bound(told[-1]), len(told[-1])) == (16.0, 1)
    assert found is not None
    assert found.predicted is None
    assert len(caplog.records) == 1
    monkeypatch.setattr(module, "headroom_of", fail)
    assert watch.at_end(9.0) is None
