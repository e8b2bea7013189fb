"""Whom a run waits for: the first stage that owes a report of the oldest batch, since it could have begun with it."""

from __future__ import annotations

import pytest

from tests.observing.clock import Clock
from workers.observing import backlog as owing_module
from workers.observing.backlog import Backlog, OldestMissing


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch, owing_module)


def test_the_first_stage_that_owes_the_oldest_batch(clock: Clock) -> None:
    backlog = Backlog(0, 10)
    for step in range(3):
        backlog.batch_sent(step, 3)
    clock.now += 5
    assert backlog.oldest() == OldestMissing(1, 0, 5.0, True)
    for stage, step in ((1, 0), (1, 1), (1, 2), (2, 0)):
        backlog.reported(stage, step)
    clock.now += 7
    assert backlog.oldest() == OldestMissing(3, 0, 7.0, True), "since stage 2 had the batch"
    backlog.reported(3, 0)
    backlog.step_done(0)
    clock.now += 1
    assert backlog.oldest() == OldestMissing(2, 1, 8.0, False), "it has had batch 1 since stage 1 reported it"
    backlog.reported(2, 0)
    assert backlog.oldest() == OldestMissing(2, 1, 0.0, False), (
        "a restarted stage that goes over old steps is not silent"
    )
    backlog.reported(1, 0)
    assert backlog.oldest() == OldestMissing(2, 1, 0.0, False), "nor does it owe them again"


def test_a_batch_that_comes_late_is_nobodys_silence(clock: Clock) -> None:
    backlog = Backlog(4, 6)
    assert backlog.oldest() == OldestMissing(None, 4, 0.0, True)
    backlog.batch_sent(4, 1)
    backlog.reported(1, 4)
    backlog.step_done(4)
    clock.now += 100
    assert backlog.oldest() == OldestMissing(None, 5, 100.0, False), "the feed"
    backlog.batch_sent(5, 1)
    clock.now += 1
    assert backlog.oldest() == OldestMissing(1, 5, 1.0, False)
    backlog.reported(1, 5)
    backlog.step_done(5)
    assert backlog.oldest() is None, "there is no further step"


def test_a_stage_that_the_batch_does_not_reach_owes_nothing(clock: Clock) -> None:
    backlog = Backlog(0, 10)
    backlog.batch_sent(0, 1)
    backlog.reported(1, 0)
    assert backlog.oldest() is None
