"""What the coordinator makes of what it hears, and of what it does not hear."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from launch.errors import EXIT_BAD_INPUT
from launch.failure import exit_code
from pipeline.errors import UserError
from tests.workers.coordinator.monitor_scene import DONE, Clock, Scene
from workers.control.failures import FailureReport, RunFailed
from workers.control.step_report import StepReport
from workers.coordinator import monitor as monitor
from workers.coordinator.monitor import GRACE_SECONDS
from workers.topology.rendezvous import START_SECONDS

REPORT = StepReport(
    1,
    3,
    loss=0.5,
    terms={},
    learning_rate=0.1,
    skipped=0,
    busy=1.0,
    wait_input=2.0,
    wait_output=3.0,
    queue_depth=0,
    link_bytes=24,
)


@pytest.fixture
def scene(tmp_path: Path, clock: Clock) -> Scene:
    return Scene(tmp_path, clock)


def beat(step: int, computing: float | None = None) -> dict[str, Any]:
    return {"type": "beat", "stage": 1, "step": step, "computing": computing, "first": False}


def test_a_run_is_over_when_all_stages_have_said_so(scene: Scene) -> None:
    scene.says("stage 1", DONE)
    scene.says("stage 1", None)  # its end needs no word any more
    scene.says("stage 2", {"type": "left"})
    scene.it.watch()
    assert not scene.noted


def test_what_a_process_wants_the_user_to_read_is_noted(scene: Scene) -> None:
    scene.says("stage 1", {"type": "note", "text": "stage 1: put_ has no deterministic kernel here"})
    scene.says("stage 1", DONE)
    scene.says("stage 2", DONE)
    scene.it.watch()
    assert scene.noted == ["stage 1: put_ has no deterministic kernel here"]


def test_after_a_snapshot_only_the_stages_that_the_last_batch_reaches_are_waited_for(scene: Scene) -> None:
    scene.batch_sender.stopped_at = SimpleNamespace(reaches=lambda stage: stage == 1)
    scene.says("stage 1", {"type": "left"})
    scene.it.watch()


def test_all_are_told_where_to_start_once_all_are_here(scene: Scene) -> None:
    scene.control.coming = ["stage 2", "stage 1"]
    scene.it.connect_all()
    start = {"type": "start", "step": 2, "total_steps": 8, "steps_per_epoch": 4, "attempt": 0, "classes": 10}
    start["parts"] = None
    assert scene.control.sent == [("stage 1", start), ("stage 2", start)]


def test_who_does_not_connect_is_named_when_the_time_for_it_is_over(scene: Scene) -> None:
    scene.control.coming = ["stage 1"]
    began = scene.clock.now
    with pytest.raises(RunFailed, match=r"stage 2 did not connect to the coordinator within 300 s") as raised:
        scene.it.connect_all()
    assert raised.value.failure.kind == "timeout"  # a new start may do
    assert scene.clock.now - began > START_SECONDS
    assert not scene.control.sent


def test_on_several_hosts_who_does_not_connect_is_named_with_its_host(scene: Scene) -> None:
    scene.it.hosts = {"stage 1": "node1", "stage 2": "node2"}
    scene.control.coming = ["stage 1"]
    with pytest.raises(RunFailed, match=r"^stage 2 on node2 did not connect to the coordinator within 300 s") as raised:
        scene.it.connect_all()
    assert exit_code(raised.value.failure) == EXIT_BAD_INPUT


def test_why_a_rank_has_ended_before_it_connects_is_the_cause(scene: Scene) -> None:
    """Its own launcher may not tell anybody: rank 0 reads it in the store."""
    scene.parent.said = [{"type": "gone", "who": "stage 2", "cause": "node2 (rank 1): full", "kind": "bad_input"}]
    with pytest.raises(RunFailed, match=r"^node2 \(rank 1\): full$") as raised:
        scene.it.connect_all()
    assert exit_code(raised.value.failure) == EXIT_BAD_INPUT


def test_a_process_that_ends_while_others_connect_ends_the_run(scene: Scene) -> None:
    scene.parent.said = [{"type": "gone", "who": "stage 2", "cause": "its process ended with exit code 3"}]
    with pytest.raises(RunFailed, match="stage 2 failed at step 0: its process ended with exit code 3"):
        scene.it.connect_all()


def test_a_run_may_be_stopped_while_its_processes_connect(scene: Scene) -> None:
    scene.parent.said = [{"type": "leave"}]
    with pytest.raises(RunFailed) as raised:
        scene.it.connect_all()
    assert raised.value.failure.kind == "interrupted"
    assert scene.batch_sender.stop_requested.is_set()


def test_what_a_stage_has_measured_is_written_down(scene: Scene) -> None:
    scene.says("stage 1", REPORT.to_message())
    scene.control.news.append([("stage 1", DONE), ("stage 2", DONE)])
    scene.it.watch()
    assert scene.reported == [REPORT]


def test_silence_of_all_ends_a_run_at_the_stage_that_is_furthest_behind(scene: Scene) -> None:
    scene.latest |= {1: SimpleNamespace(step=5), 2: SimpleNamespace(step=3)}
    began = scene.clock.now
    failure = scene.failure()
    assert (failure.who, failure.step, failure.kind) == ("stage 2", 4, "timeout")
    assert failure.cause == "no stage has reported anything for 60 s (link.timeout)"
    assert scene.clock.now - began > 60


def test_before_the_first_report_silence_may_last_as_long_as_a_start(scene: Scene) -> None:
    began = scene.clock.now
    assert scene.failure().kind == "timeout"
    assert scene.clock.now - began > 60 + START_SECONDS


def test_signs_of_life_are_no_progress(scene: Scene) -> None:
    scene.latest[1] = scene.latest[2] = SimpleNamespace(step=1)
    scene.control.news.extend([("stage 1", beat(2))] for _ in range(1000))
    assert scene.failure().kind == "timeout"
    assert scene.control.news, "it did not wait for the last of them"


def test_progress_is_what_any_stage_says(scene: Scene) -> None:
    """Of two that are silent for most of the limit each, nobody is to blame."""
    scene.latest[1] = scene.latest[2] = SimpleNamespace(step=1)
    almost = int(50 / monitor.POLL_SECONDS)
    scene.control.news.extend([] for _ in range(almost))
    scene.says("stage 1", DONE)
    scene.control.news.extend([] for _ in range(almost))
    scene.says("stage 2", DONE)
    scene.it.watch()


def test_a_run_that_is_leaving_is_not_blamed_for_silence_but_for_its_own_limit(tmp_path: Path, clock: Clock) -> None:
    scene = Scene(tmp_path, clock, snapshots={"every": 2, "leave_seconds": 500})
    scene.latest[1] = scene.latest[2] = SimpleNamespace(step=1)
    scene.says("stage 1", {"type": "leave", "why": "asked to stop by SIGTERM"})
    began = clock.now
    failure = scene.failure()
    assert failure.kind == "interrupted"
    assert "from the snapshot after 4 steps" in failure.cause
    assert clock.now - began > 500
    assert scene.noted[0].startswith("asked to stop by SIGTERM: stopping after a snapshot")
    assert scene.noted[1:] == [
        "no snapshot was complete within 500 s (snapshots.leave_seconds): what was trained since the last is lost"
    ]


def test_a_second_wish_to_stop_changes_nothing(scene: Scene) -> None:
    scene.says("stage 1", {"type": "leave", "why": "asked to stop by SIGTERM"})
    scene.parent.said = [{"type": "leave"}]
    scene.control.news.extend([[("stage 1", DONE), ("stage 2", DONE)]])
    scene.it.watch()
    assert len(scene.noted) == 1


@pytest.mark.parametrize("first", ["stage 1", "stage 2"])
def test_what_raised_explains_the_neighbour_that_lost_its_link(scene: Scene, first: str) -> None:
    lost = FailureReport("stage 1", 3, "lost_neighbour", "link1: stage 2 ended").to_message()
    raised = FailureReport("stage 2", 3, "raised", "ValueError: broken").to_message()
    for name in (first, "stage 2" if first == "stage 1" else "stage 1"):
        scene.says(name, lost if name == "stage 1" else raised)
    assert scene.failure() == FailureReport("stage 2", 3, "raised", "ValueError: broken")


def test_a_process_that_ends_without_a_word_is_given_a_moment_for_its_parent_to_say_how(scene: Scene) -> None:
    scene.says("stage 2", None)
    began = scene.clock.now
    assert scene.failure() == FailureReport("stage 2", 0, "died", "its process ended without a word")
    assert scene.clock.now - began > GRACE_SECONDS


def test_what_the_parent_says_is_better_than_nothing(scene: Scene) -> None:
    scene.says("stage 2", None)
    scene.parent.said = [{"type": "gone", "who": "stage 2", "cause": "its process was killed by signal 9 (SIGKILL)"}]
    assert scene.failure() == FailureReport("stage 2", 0, "died", "its process was killed by signal 9 (SIGKILL)")


def test_what_a_process_said_itself_is_better_than_how_it_ended(scene: Scene) -> None:
    """Its parent is heard first, though the process spoke before."""
    scene.parent.said = [{"type": "gone", "who": "stage 2", "cause": "its process ended with exit code 1"}]
    scene.control.news.extend(
        [[], [("stage 2", FailureReport("stage 2", 3, "raised", "ValueError: broken").to_message())]]
    )
    assert scene.failure().cause == "ValueError: broken"


def test_a_connection_that_was_dropped_for_what_came_over_it_says_why(scene: Scene) -> None:
    scene.control.dropped["stage 1"] = "it sent a message of 17 MB"
    scene.says("stage 1", None)
    assert scene.failure() == FailureReport("stage 1", 0, "raised", "it sent a message of 17 MB")


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ({"type": "snapshot", "stage": 2, "steps": 4, "file": None}, "a snapshot of stage 2, which is not its own"),
        ({"type": "report", "stage": 1}, "it sent "),
        (replace(REPORT, stage=2).to_message(), "a report of stage 2, which it does not train"),
        ({"type": "beat", "stage": -1}, "it sent "),
        ({"type": "failure", "who": "stage 1", "kind": "unknown"}, "it sent "),
    ],
)
def test_what_makes_no_sense_is_a_failure_of_whoever_sent_it(scene: Scene, message: dict[str, Any], why: str) -> None:
    scene.says("stage 1", message)
    failure = scene.failure()
    assert (failure.who, failure.kind) == ("stage 1", "raised")
    assert why in failure.cause


def test_a_step_that_takes_too_long_is_named_with_its_stage(tmp_path: Path, clock: Clock) -> None:
    scene = Scene(tmp_path, clock, hang_timeout=30)
    scene.it._health.add(["stage 1"])
    scene.says("stage 1", beat(6, computing=31.0))
    assert scene.failure() == FailureReport("stage 1", 6, "hung", "it has been computing for 31 s (hang_timeout)")


def test_what_failed_in_sending_is_the_coordinators(scene: Scene) -> None:
    scene.it.sender_failed(3, UserError("the data set is gone"))
    assert scene.failure() == FailureReport("coordinator", 3, "bad_input", "the data set is gone")


def two_hosts(tmp_path: Path, clock: Clock, hang_timeout: int) -> Scene:
    """A stage on each, both of which are watched."""
    scene = Scene(tmp_path, clock, hang_timeout=hang_timeout)
    scene.it.hosts = {"stage 1": "node1", "stage 2": "node2"}
    scene.it._health.add(["stage 1", "stage 2"])
    return scene


def test_a_host_whose_processes_are_all_silent_is_the_cause(tmp_path: Path, clock: Clock) -> None:
    scene = two_hosts(tmp_path, clock, hang_timeout=10)
    for _ in range(200):
        scene.says("stage 1", beat(6))
    failure = scene.failure()
    assert (failure.who, failure.kind) == ("stage 2", "hung")
    assert failure.cause.startswith("host node2 is unreachable: no sign of life for 10 s (hang_timeout) of its on")


def test_a_link_that_breaks_because_its_host_is_gone_is_not_the_cause(tmp_path: Path, clock: Clock) -> None:
    scene = two_hosts(tmp_path, clock, hang_timeout=30)
    for _ in range(40):
        scene.says("stage 1", beat(6))
    scene.says("stage 1", FailureReport("stage 1", 6, "timeout", "nobody has taken what it sends").to_message())
    assert scene.failure().cause.startswith("host node2 is unreachable: no sign of life for ")


def test_a_link_that_breaks_while_all_hosts_are_heard_of_is_the_cause(tmp_path: Path, clock: Clock) -> None:
    scene = two_hosts(tmp_path, clock, hang_timeout=30)
    for _ in range(20):
        scene.says("stage 1", beat(6))
        scene.says("stage 2", beat(6))
    scene.says("stage 1", FailureReport("stage 1", 6, "timeout", "nobody has taken what it sends").to_message())
    assert scene.failure().cause == "nobody has taken what it sends"
