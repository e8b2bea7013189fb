"""Which stages the coordinator brings back, from where, and when it gives up."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.workers.coordinator.monitor_scene import DONE, Clock, Scene
from workers.control.channel import ControlTimeout
from workers.control.failures import FailureReport
from workers.topology.rendezvous import START_SECONDS


@pytest.fixture
def returning(tmp_path: Path, clock: Clock) -> Scene:
    """Of a run whose stages come back."""
    return Scene(tmp_path, clock, restart="stage", snapshots={"every": 2}, max_restarts=2)


def test_a_stage_that_fails_comes_back_from_the_last_snapshot(returning: Scene) -> None:
    """While it is awaited nobody is late, and what its last process says is not listened to."""
    returning.latest[1] = returning.latest[2] = SimpleNamespace(step=5)
    returning.says("stage 2", FailureReport("stage 2", 6, "raised", "ValueError: broken").to_message())
    returning.control.news.extend([] for _ in range(1000))  # for longer than link.timeout
    returning.says("stage 2", None)
    returning.says("stage 2", {"type": "nonsense of the process that is being replaced"})

    def connected_again(names: set[str], timeout: float) -> None:
        if returning.control.news:
            raise ControlTimeout("not yet")
        returning.control.here.add("stage 2")
        returning.control.news.extend([[("stage 1", DONE), ("stage 2", DONE)]])

    returning.control.accept = connected_again  # type: ignore[method-assign]
    returning.it.watch()
    assert returning.parent.restarted == [["stage 2"]]
    assert returning.control.dismissed == ["stage 2"]
    assert returning.forgotten == returning.counted_anew == [(2,)]
    start = {"type": "start", "step": 4, "total_steps": 8, "steps_per_epoch": 4, "attempt": 1, "classes": 10}
    start["parts"] = None
    assert returning.control.sent == [("stage 2", start)]
    text = "stage 2 failed at step 6: ValueError: broken. It comes back from step 4"
    text += " (restart 1 of 2 without a new snapshot)"
    assert returning.posted == [("restart", "restart", text, 2, 4)]


def test_a_stage_that_does_not_come_back_ends_the_run(returning: Scene) -> None:
    returning.says("stage 2", FailureReport("stage 2", 6, "raised", "ValueError: broken").to_message())
    assert returning.failure() == FailureReport(
        "stage 2", None, "died", f"it did not come back within {START_SECONDS:g} s"
    )


@pytest.mark.parametrize("kind", ["bad_input", "device_gone"])
def test_where_it_does_not_help_nobody_comes_back(returning: Scene, kind: str) -> None:
    failure = FailureReport("stage 2", 0, kind, "the module is gone")
    returning.says("stage 2", failure.to_message())
    assert returning.failure() == failure
    assert returning.parent.restarted == []


def test_a_run_that_is_leaving_brings_nobody_back(returning: Scene) -> None:
    failure = FailureReport("stage 2", 6, "raised", "ValueError: broken")
    returning.control.news.append([("stage 1", {"type": "leave", "why": "asked"}), ("stage 2", failure.to_message())])
    assert returning.failure() == failure
    assert returning.parent.restarted == []


def test_a_stage_comes_back_as_often_as_it_may(returning: Scene) -> None:
    for _ in range(3):
        returning.says("stage 2", FailureReport("stage 2", 6, "raised", "ValueError: broken").to_message())
        returning.control.news.append([])
    returning.control.coming = ["stage 2"] * 3
    assert returning.failure() == FailureReport("stage 2", 6, "given_up", "ValueError: broken")
    assert returning.parent.restarted == [["stage 2"]] * 2


def test_where_stages_come_back_one_that_is_done_is_still_needed(returning: Scene) -> None:
    """Its neighbour may have to be sent again what it has dropped: the end of its process is no end in order."""
    returning.says("stage 1", DONE)
    returning.says("stage 1", None)
    returning.control.news.extend([] for _ in range(20))
    assert returning.failure().kind == "died"
    assert returning.parent.restarted == [["stage 1"]]


def test_the_end_of_a_process_that_was_replaced_is_not_that_of_the_new_one(returning: Scene) -> None:
    """Its parent may have seen it end just before it was told to start another, which may be quick to connect."""
    returning.says("stage 2", FailureReport("stage 2", 6, "raised", "ValueError: broken").to_message())

    def connected_again(names: set[str], timeout: float) -> None:
        returning.control.here.add("stage 2")
        cause = "its process ended with exit code 1"
        returning.parent.said = [{"type": "gone", "who": "stage 2", "cause": cause, "attempt": 0}]
        returning.control.news.extend([[], [("stage 1", DONE), ("stage 2", DONE)]])

    returning.control.accept = connected_again  # type: ignore[method-assign]
    returning.it.watch()
    assert returning.parent.restarted == [["stage 2"]]


def test_a_new_process_that_dies_before_it_connects_is_not_waited_for(returning: Scene) -> None:
    returning.says("stage 2", FailureReport("stage 2", 6, "raised", "ValueError: broken").to_message())
    cause = "its process was killed by signal 9 (SIGKILL)"

    def started(names: list[str]) -> None:
        returning.parent.restarted.append(names)
        attempt = len(returning.parent.restarted)
        returning.parent.said = [{"type": "gone", "who": "stage 2", "cause": cause, "attempt": attempt}]

    returning.parent.restart = started  # type: ignore[method-assign]
    began = returning.clock.now
    assert returning.failure() == FailureReport("stage 2", 0, "given_up", cause)
    assert returning.parent.restarted == [["stage 2"]] * 2
    assert returning.clock.now - began < START_SECONDS
