"""Who comes back, in which attempt, and when it has been tried often enough."""

from __future__ import annotations

import pytest

from workers.coordinator import restarts
from workers.coordinator.restarts import Restarts
from workers.topology.processes import TrainingProcess

MEMBERS = [
    TrainingProcess(0, 0, (1,)),
    TrainingProcess(1, 1, (2,), 1, 2),
    TrainingProcess(2, 1, (2,), 2, 2),
    TrainingProcess(3, 2, (3, 4)),
]


@pytest.fixture
def kept() -> Restarts:
    return Restarts(MEMBERS, limit=2, timeout=30.0)


def test_all_replicas_of_a_stage_come_back_together(kept: Restarts) -> None:
    assert kept.begin(1) == ["stage 2 replica 1", "stage 2 replica 2"]
    assert kept.begin(2) == ["stages 3-4"]
    assert kept.awaited == {"stage 2 replica 1", "stage 2 replica 2", "stages 3-4"}
    assert [kept.attempt(stage_group) for stage_group in (0, 1, 2)] == [0, 1, 1]
    kept.forget("stage 2 replica 2")
    assert kept.awaited == {"stage 2 replica 1", "stages 3-4"}


def test_a_new_snapshot_renews_the_budget(kept: Restarts) -> None:
    for committed in (0, 0, 4, 4):
        assert not kept.exhausted(committed)
        kept.begin(0)
    assert kept.exhausted(4)
    assert not kept.exhausted(8)
    assert (kept.in_a_row, kept.total, kept.attempt(0)) == (0, 4, 4)


def test_who_does_not_come_back_is_named(kept: Restarts, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(restarts.time, "monotonic", lambda: now[0])
    kept.begin(1)
    kept.forget("stage 2 replica 1")
    now[0] = 30.0
    assert kept.overdue() is None
    now[0] = 30.5
    assert kept.overdue() == "stage 2 replica 2"
