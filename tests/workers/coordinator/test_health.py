"""Who counts as hung: a process that gives no sign of life, or one whose step takes too long; nobody else."""

from __future__ import annotations

import pytest

from workers.coordinator import health
from workers.coordinator.health import Health, Heartbeat


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the module sees; set its one element."""
    now = [100.0]
    monkeypatch.setattr(health.time, "monotonic", lambda: now[0])
    return now


def pass_seconds(clock: list[float], kept: Health, seconds: int) -> None:
    """As time passes for a coordinator, which looks all the time."""
    for _ in range(seconds):
        clock[0] += 1
        kept.find_hung()


def test_a_process_without_a_sign_of_life_is_hung(clock: list[float]) -> None:
    kept = Health(10.0)
    kept.add(["stage 1", "stage 2"])
    pass_seconds(clock, kept, 6)
    kept.record("stage 1")
    kept.record("stage 2", Heartbeat(2, 7, None))
    pass_seconds(clock, kept, 6)
    kept.record("stage 1")
    assert kept.find_hung() is None
    pass_seconds(clock, kept, 5)
    hung = kept.find_hung()
    assert hung is not None
    assert (hung.who, hung.stage, hung.step) == ("stage 2", 2, 7)
    assert hung.cause == "no sign of life for 11 s (hang_timeout): its process or its host is stopped or cut off"
    kept.remove("stage 2")
    assert kept.find_hung() is None


@pytest.mark.parametrize(
    ("heartbeat", "hangs"),
    [
        (Heartbeat(3, 4, 11.0), True),
        (Heartbeat(3, 4, 9.0), False),
        (Heartbeat(3, 4, None), False),  # it waits for a neighbour
        (Heartbeat(3, 0, 1000.0, first=True), False),  # the first step may take its time
        (Heartbeat(3, 400, 1000.0, first=True), False),  # so may that of a process that goes on from a snapshot
        (Heartbeat(3, 0, 11.0), True),
    ],
)
def test_only_a_step_that_takes_too_long_is_hung(clock: list[float], heartbeat: Heartbeat, hangs: bool) -> None:
    kept = Health(10.0)
    kept.add(["stages 3-4"])
    kept.record("stages 3-4", heartbeat)
    hung = kept.find_hung()
    assert (hung is not None) == hangs
    if hung is not None:
        assert (hung.who, hung.stage, hung.step) == ("stages 3-4", 3, heartbeat.step)
        assert hung.cause == "it has been computing for 11 s (hang_timeout)"


def test_strangers_and_the_dismissed_are_not_watched(clock: list[float]) -> None:
    kept = Health(10.0)
    kept.add(["stage 1"])
    kept.remove("stage 1")
    kept.record("stage 1", Heartbeat(1, 5, 100.0))
    kept.record("stage 9", Heartbeat(9, 5, 100.0))
    clock[0] += 1000
    assert kept.find_hung() is None
    kept.add(["stage 1"])  # it is back
    assert kept.find_hung() is None


def test_a_coordinator_that_stood_still_itself_blames_nobody(clock: list[float]) -> None:
    """A job was suspended for longer than hang_timeout, went on, and called itself hung."""
    kept = Health(10.0)
    kept.add(["stage 1"])
    pass_seconds(clock, kept, 6)
    clock[0] += 3600
    assert kept.find_hung() is None
    pass_seconds(clock, kept, 4)
    assert kept.find_hung() is None
    pass_seconds(clock, kept, 1)
    hung = kept.find_hung()
    assert hung is not None
    assert hung.cause.startswith("no sign of life for 11 s"), "the hour of sleep does not count"
