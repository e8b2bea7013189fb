"""Laps by the clock of a device: they follow each other without a gap, and nobody waits for them."""

from __future__ import annotations

import threading

import pytest
import torch

from tests.workers.stage.streams import START, Stream, Time
from workers.control.step_report import StageTimes
from workers.stage.device_clock import DeviceClock


def test_a_cpu_has_done_its_work_when_the_lap_ends() -> None:
    time, times = Time(), StageTimes()
    clock = DeviceClock(now=time)
    assert not clock.lags
    clock.start()
    for share, seconds in (("wait_input", 1.0), ("copying", 2.0), ("busy", 4.0), ("wait_output", 8.0)):
        time.pass_by(seconds)
        assert clock.lap(times, share).reached()
    assert times == StageTimes(busy=4.0, wait_input=1.0, wait_output=8.0, copying=2.0)


def test_the_clock_of_a_cpu_records_no_events() -> None:
    """Events of a CPU cannot be recorded; those of a GPU are made where there is one."""
    assert not DeviceClock.of(torch.device("cpu")).lags
    assert DeviceClock.of(torch.device("cuda", 0)).lags


def test_a_lap_ends_when_the_device_gets_there() -> None:
    time, times = Time(), StageTimes()
    stream = Stream(time)
    clock = stream.clock()
    clock.start()
    stream.launch(5.0)
    forward = clock.lap(times, "busy")  # the launch took no time
    assert (times.busy, forward.reached()) == (0.0, False)
    time.pass_by(8.0)  # there is no room for so long
    clock.lap(times, "wait_output")
    stream.launch(2.0)
    stream.synchronize()
    clock.lap(times, "copying")
    assert forward.reached()
    assert times == StageTimes(busy=5.0, wait_output=3.0, copying=2.0)


def test_room_that_comes_while_the_device_computes_was_not_waited_for() -> None:
    time, times = Time(), StageTimes()
    stream = Stream(time)
    clock = stream.clock()
    clock.start()
    stream.launch(5.0)
    clock.lap(times, "busy")
    time.pass_by(3.0)
    clock.lap(times, "wait_output")
    stream.launch(2.0)
    stream.synchronize()
    clock.lap(times, "copying")
    assert times == StageTimes(busy=5.0, wait_output=0.0, copying=2.0)


def test_the_first_lap_begins_with_an_idle_device() -> None:
    time, times = Time(), StageTimes()
    stream = Stream(time)
    stream.launch(7.0)  # the weights, on their way to the device
    clock = stream.clock()
    assert clock.start().issued == START + 7.0
    time.pass_by(1.0)
    clock.lap(times, "wait_input")
    assert times == StageTimes(wait_input=1.0)


def test_what_nobody_spent_is_in_no_sum_and_a_trace_gets_the_times_of_the_host() -> None:
    time, times, told = Time(), StageTimes(), list[tuple[float, float]]()
    stream = Stream(time)
    clock = stream.clock()
    clock.start()
    time.pass_by(16.0)
    clock.lap(None)
    stream.launch(4.0)
    clock.lap(times, "busy", lambda since, until: told.append((since - START, until - START)))
    assert told == []
    time.pass_by(32.0)
    clock.settle()
    assert (times, told) == (StageTimes(busy=4.0), [(16.0, 20.0)])


@pytest.mark.parametrize("drift", [0.5, 2.0])
def test_a_clock_that_drifts_is_held_by_that_of_the_host(drift: float) -> None:
    """No lap ends before it was launched or later than now, however long a run takes."""
    time, times = Time(), StageTimes()
    stream = Stream(time, drift=drift)
    clock = stream.clock()
    clock.start()
    for _ in range(64):
        stream.launch(1.0)
        clock.lap(times, "busy")
        stream.synchronize()
        time.pass_by(1.0)
        clock.lap(times, "wait_input")
    assert times.busy + times.wait_input == 128.0 == time.now - START


def test_another_thread_may_ask_what_is_reached() -> None:
    time = Time()
    stream = Stream(time)
    clock = stream.clock()
    clock.start()
    stream.launch(1.0)
    mark, seen = clock.lap(StageTimes()), list[bool]()
    for _ in range(2):
        asking = threading.Thread(target=lambda: seen.append(mark.reached()))
        asking.start()
        asking.join()
        time.pass_by(1.0)
    assert seen == [False, True]
