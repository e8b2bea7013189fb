"""Each alarm: raised once, cleared once and some way below where it was raised, with what to do about it."""

from __future__ import annotations

from math import sqrt
from typing import Any, get_args

import pytest

from pipeline.config import Config
from tests.observing.clock import Clock
from tests.pipeline.small import small_config
from workers.control.step_report import ThrottleReason
from workers.observing import alarms as alarms_module
from workers.observing.active_alarms import ActiveAlarms
from workers.observing.alarms import Alarms
from workers.observing.amounts import MissingAmounts
from workers.observing.backlog import OldestMissing
from workers.observing.observer import Event
from workers.topology.rendezvous import START_SECONDS

WIDTHS = {1: 8, 2: 16, 3: 32, 4: 64}
"""Channels of the four blocks of the small network."""


class Case:
    """Alarms that are told lines, and what they said."""

    def __init__(self, config: Config) -> None:
        self.said: list[Event] = []
        self.active = ActiveAlarms()
        self.alarms = Alarms(config, self._tell, self.active)
        self.step, self._missing = 0, MissingAmounts()

    def _tell(self, event: Event) -> None:
        self.active.event(event)
        self.said.append(event)

    def line(self, *stages: dict[str, Any], seconds: float | None = None) -> None:
        time = float(self.step) if seconds is None else seconds
        known = {"skipped": 0, "loss": 0.5, "busy": self.step, "wait_input": 0.0, "wait_output": 0.0}
        told = [{"stage": number, **known, **stage} for number, stage in enumerate(stages, 1)]
        self.alarms.step_done(self._missing.fill({"step": self.step, "time": time, "stages": told}))
        self.step += 1

    def news(self) -> list[tuple[str, str, int | None]]:
        found = [(event.kind, event.name, event.stage) for event in self.said]
        self.said.clear()
        return found


def case(**sections: Any) -> Case:
    return Case(small_config(**sections))


def collapse(level: float, stage: int = 2) -> dict[str, Any]:
    return {"online": {"collapse": level / sqrt(WIDTHS[stage])}}


def test_a_collapse_is_told_once_and_ends_above_its_limit() -> None:
    run = case()
    run.line({}, collapse(0.5))
    assert run.news() == []
    for level in (0.09, 0.01, 0.05):
        run.line({}, collapse(level))
    (event,) = run.said
    assert (event.kind, event.name, event.stage, event.step) == ("alarm", "collapse", 2, 1)
    assert event.text.startswith("stage 2: its features have collapsed, they spread 9.0 % as far as they could ")
    assert "alarms.collapse_below=0.1" in event.text
    assert "stages.2" in event.text
    run.news()
    for level in (0.11, 0.09, 0.119):
        run.line({}, collapse(level))
        run.line({}, {})
    assert run.news() == [], "neither over nor raised again"
    run.line({}, collapse(0.13))
    assert run.news() == [("cleared", "collapse", 2)]
    run.line(collapse(0.05, 1), collapse(0.05))
    assert run.news() == [("alarm", "collapse", 1), ("alarm", "collapse", 2)]


def test_a_loss_that_is_not_finite_is_told_at_once() -> None:
    run = case(alarms={"enabled": False, "window_steps": 3})
    run.line({}, {})
    for skipped in (1, 2):
        run.line({}, {"skipped": skipped, "loss": None})
    (event,) = run.said
    assert (event.kind, event.name, event.stage, event.step) == ("alarm", "nonfinite", 2, 1)
    assert event.text == (
        "stage 2: the loss is not finite and the step was skipped (after 10 in a row the run ends): lower optimizer.lr "
        "or warm up longer, for this stage alone with stages.2.optimizer. onward replay RUN --stage 2 --step 1 shows "
        "where it began"
    )
    run.news()
    for _ in range(2):
        run.line({}, {"skipped": 2})
    assert run.news() == []
    run.line({}, {"skipped": 2})
    assert run.news() == [("cleared", "nonfinite", 2)]
    run.line({}, {"skipped": 0})
    assert run.news() == [], "a stage that came back counts from 0 again"


def test_one_gradient_that_overflows_is_no_news_and_five_in_a_row_are() -> None:
    run = case()
    for skipped in (1, 1, 2, 3, 4, 5, 5):
        run.line({"skipped": skipped})
    assert run.news() == []
    for skipped in range(6, 11):
        run.line({"skipped": skipped})
    (event,) = run.said
    assert "for 5 steps in a row gradients were not finite" in event.text


def test_end_to_end_the_block_with_the_loss_is_named() -> None:
    run = case(mode="end_to_end")
    run.line(*({"skipped": 1, "loss": None} for _ in range(4)))
    assert run.news() == [("alarm", "nonfinite", 4)]


def test_end_to_end_the_block_is_named_whose_gradients_overflow() -> None:
    run = case(mode="end_to_end")
    for skipped in range(1, 6):
        assert run.news() == []
        run.line({"loss": None}, {"skipped": skipped, "loss": None}, {"loss": None}, {})
    assert "for 5 steps in a row gradients were not finite" in run.said[0].text
    assert run.news() == [("alarm", "nonfinite", 2)]


def test_a_pipeline_that_waits_for_images_is_told() -> None:
    run = case(alarms={"window_steps": 4}, data={"workers": 3})
    waited = [0.0, 0.6, 1.2, 1.8]
    for total in waited:
        run.line({"wait_input": total})
    assert run.news() == [], "the window is not full"
    run.line({"wait_input": 2.4})
    (event,) = run.said
    assert (event.kind, event.name, event.stage) == ("alarm", "starved", 1)
    assert "stage 1 waits for images 60 % of the time, over the last 4 steps" in event.text
    assert "raise data.workers (it is 3)" in event.text
    run.news()
    total = 2.4
    for share in (0.45, 0.45, 0.45, 0.45, 0.45):
        total += share
        run.line({"wait_input": total})
    assert run.news() == [], "below the limit, and not by enough"
    for _ in range(4):
        total += 0.3
        run.line({"wait_input": total})
    assert run.news() == [("cleared", "starved", 1)]


def busy(run: Case, times: list[float], *each: float) -> None:
    for index, seconds in enumerate(each):
        times[index] += seconds
    run.line(*({"busy": total} for total in times))


def test_a_stage_that_is_much_busier_than_the_others_is_told() -> None:
    run, times = case(alarms={"window_steps": 2}), [0.0, 0.0, 0.0, 0.0]
    for _ in range(5):
        busy(run, times, 1.0, 1.9, 1.0, 1.0)
    assert run.news() == []
    for _ in range(3):
        busy(run, times, 1.0, 1.0, 3.0, 1.0)
    (event,) = run.said
    assert (event.kind, event.name, event.stage) == ("alarm", "bottleneck", 3)
    assert event.text.startswith("stage 3 computes 3.0 times as long") or "stage 3 computes 2." in event.text
    assert "stages.3.replicas" in event.text
    run.news()
    for _ in range(3):
        busy(run, times, 1.0, 1.0, 1.9, 1.0)
    assert run.news() == [], "1.8 is where it ends"
    for _ in range(3):
        busy(run, times, 1.0, 1.0, 1.7, 1.0)
    assert run.news() == [("cleared", "bottleneck", 3)]


def test_a_stage_that_copies_is_waited_for_as_one_that_computes() -> None:
    run = case(alarms={"window_steps": 2})
    for step in range(1, 4):
        spent = [{"busy": 1.0 * step, "copying": seconds * step} for seconds in (0.0, 0.0, 2.0, 0.5)]
        run.line(*spent)
    (event,) = run.said
    assert (event.kind, event.name, event.stage) == ("alarm", "bottleneck", 3)
    assert event.text.startswith("stage 3 computes and copies 2.6 times as long as the others on average")


def test_the_slowest_of_stages_that_all_wait_for_images_is_no_bottleneck() -> None:
    run, times = case(alarms={"window_steps": 2, "starved_above": 0.99}), [0.0, 0.0, 0.0, 0.0]
    for _ in range(4):
        busy(run, times, 0.1, 0.4, 0.1, 0.1)  # of one second
    assert run.news() == []
    for _ in range(3):
        busy(run, times, 0.1, 0.6, 0.1, 0.1)
    assert run.news() == [("alarm", "bottleneck", 2)]
    for _ in range(3):
        busy(run, times, 0.1, 0.45, 0.1, 0.1)
    assert run.news() == [], "not clearly less than half of the time"
    for _ in range(3):
        busy(run, times, 0.1, 0.35, 0.1, 0.1)
    assert run.said[0].text == "stage 2 waits itself most of the time"
    assert run.news() == [("cleared", "bottleneck", 2)]


def test_stages_that_share_a_process_count_together() -> None:
    run, times = case(alarms={"window_steps": 2}, processes=2), [0.0, 0.0, 0.0, 0.0]
    for _ in range(3):
        busy(run, times, 1.0, 1.0, 1.0, 3.5)
    assert run.news() == [("alarm", "bottleneck", 4)], "4.5 of two stages against 2 of the others"
    alone, times = case(alarms={"window_steps": 2}, processes=1), [0.0, 0.0, 0.0, 0.0]
    for _ in range(3):
        busy(alone, times, 1.0, 1.0, 1.0, 9.0)
    assert alone.news() == [], "nobody waits for it"


@pytest.mark.parametrize("sections", [{"mode": "sequential"}, {"runtime": "serial"}, {"alarms": {"enabled": False}}])
def test_nobody_is_a_bottleneck_where_no_two_compute_at_once_or_nobody_asks(sections: dict[str, Any]) -> None:
    run, times = case(**{**sections, "alarms": {"window_steps": 2, **sections.get("alarms", {})}}), [0.0] * 4
    for _ in range(4):
        busy(run, times, 1.0, 9.0, 1.0, 1.0)
    assert run.news() == []


def test_a_stage_that_comes_back_starts_the_window_again() -> None:
    run, times = case(alarms={"window_steps": 2}), [0.0, 0.0, 0.0, 0.0]
    for _ in range(2):
        busy(run, times, 1.0, 3.0, 1.0, 1.0)
    times[0] = 0.0
    for _ in range(2):
        busy(run, times, 1.0, 3.0, 1.0, 1.0)
        assert run.news() == [], "the window is not full again"
    busy(run, times, 1.0, 3.0, 1.0, 1.0)
    assert run.news() == [("alarm", "bottleneck", 2)]


def test_a_stage_that_says_nothing_is_told_and_is_over_when_it_has_kept_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, run = Clock(monkeypatch, alarms_module), case(alarms={"silent_seconds": 60})

    def tick(seconds: float, stage: int | None = 3, first: bool = False) -> list[tuple[str, str, int | None]]:
        clock.now += 1
        run.alarms.tick(OldestMissing(stage, 12, seconds, first))
        return [(event.kind, event.name, event.stage) for event in run.said]

    assert tick(59) == []
    assert tick(61 + START_SECONDS - 2, first=True) == [], "the first step may take long"
    assert tick(61) == tick(62) == [("alarm", "silent", 3)]
    (event,) = run.said
    assert event.text == (
        "stage 3 has reported nothing for 61 s and step 12 waits for it: see its log in logs/; one that computes "
        "longer than hang_timeout=120 ends the run"
    )
    run.news()
    for _ in range(3):  # a report every 50 s: neither silent nor at its old pace
        for seconds in range(0, 50, 1):
            assert tick(seconds) == []
    for _ in range(2):  # steps that take 40 s each are slow, and yet not silent
        for seconds in range(0, 40, 1):
            tick(seconds)
    assert run.news() == [("cleared", "silent", 3)]
    assert tick(61, None) == [("alarm", "silent", None)]
    assert "no images have come for 61 s" in run.said[0].text
    run.news()
    run.alarms.tick(None)
    assert run.news() == [("cleared", "silent", None)], "nothing is owed any more"
    run.alarms.tick(None)
    assert run.news() == [], "the run is over"


def test_a_gpu_that_is_slowed_down_is_told_with_the_reason_until_it_is_not() -> None:
    run = case()
    run.line({}, {"throttled": ["power_cap"]})
    run.line({}, {"throttled": ["power_cap", "hw_thermal"]})
    (event,) = run.said
    assert (event.kind, event.name, event.stage, event.step) == ("alarm", "throttled", 2, 0)
    assert event.text == "stage 2: its GPU runs slower than it could: its power cap (nvidia-smi -q -d POWER)"
    run.news()
    run.line({}, {})
    assert run.news() == [("cleared", "throttled", 2)]


def test_every_reason_has_its_words() -> None:
    assert set(alarms_module.THROTTLED) == set(get_args(ThrottleReason))
