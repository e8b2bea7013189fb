"""Who is asked for the stacks of its threads when a process hangs, and what the line of the cause says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.workers.coordinator.monitor_scene import Clock, Scene
from workers.coordinator.monitor import GRACE_SECONDS
from workers.coordinator.stacks import ANSWER_SECONDS
from workers.run.stacks import MARK

LATE = "it has been computing for 31 s (hang_timeout)"
HANGS = {"type": "beat", "stage": 1, "step": 6, "computing": 31.0, "first": False}


@pytest.fixture
def scene(tmp_path: Path, clock: Clock) -> Scene:
    """Two stages that are watched, and their logs."""
    scene = Scene(tmp_path, clock, hang_timeout=30)
    scene.it._health.add(["stage 1", "stage 2"])
    (tmp_path / "logs").mkdir()
    for stage in (1, 2):
        (tmp_path / "logs" / f"stage_{stage}.log").write_text(f"as in an earlier hang {MARK.decode()}\n")
    return scene


def answers(scene: Scene, name: str, **more: Any) -> None:
    scene.says(name, {"type": "stacks", **more})


def writes(scene: Scene, name: str) -> None:
    with (scene.it.snapshots.run.log(name.replace(" ", "_"))).open("ab") as log:
        log.write(b"Current thread 0x1 " + MARK + b"\n")


def test_whoever_hangs_and_its_neighbours_are_asked_and_named(scene: Scene) -> None:
    scene.says("stage 1", HANGS)
    answers(scene, "stage 2")
    answers(scene, "stage 1")
    cause = scene.failure().cause
    assert cause == f"{LATE}; its stacks are in logs/stage_1.log; those of its neighbours in logs/stage_2.log"
    assert scene.control.sent == [("stage 1", {"type": "stacks"}), ("stage 2", {"type": "stacks"})]
    assert not scene.parent.signalled


def test_what_nccl_was_doing_is_named_too(scene: Scene) -> None:
    scene.says("stage 1", HANGS)
    answers(scene, "stage 1", nccl=True)
    answers(scene, "stage 2", nccl=False)
    assert scene.failure().cause.endswith("; NCCL's record in logs/stage_1.nccl.json")


def only_stage_2_is_heard_of(scene: Scene) -> None:
    """Until stage 1 counts as hung."""
    for _ in range(151):
        scene.says("stage 2", {**HANGS, "stage": 2, "computing": None})


def test_a_silent_process_gets_a_signal_and_is_not_called_stopped_if_it_follows(scene: Scene) -> None:
    scene.parent.writes = lambda name: writes(scene, name)
    only_stage_2_is_heard_of(scene)
    answers(scene, "stage 2")
    assert scene.failure().cause == (
        "no sign of life for 30 s (hang_timeout): a call that is not Python holds its interpreter; "
        "its stacks are in logs/stage_1.log; those of its neighbours in logs/stage_2.log"
    )
    assert scene.parent.signalled == [["stage 1"]]


def test_a_silent_process_that_follows_no_signal_is_stopped(scene: Scene) -> None:
    only_stage_2_is_heard_of(scene)
    answers(scene, "stage 2")
    assert scene.failure().cause == (
        "no sign of life for 30 s (hang_timeout): its process or its host is stopped or cut off; "
        "it wrote no stacks; its neighbours' are in logs/stage_2.log"
    )


def test_a_process_that_writes_nothing_is_not_waited_for_long(scene: Scene, clock: Clock) -> None:
    scene.says("stage 1", HANGS)
    answers(scene, "stage 2")
    began = clock.now
    cause = scene.failure().cause
    assert cause == f"{LATE}; it wrote no stacks; its neighbours' are in logs/stage_2.log"
    assert ANSWER_SECONDS <= clock.now - began < ANSWER_SECONDS + GRACE_SECONDS + 1


def test_where_nobody_writes_anything_nothing_is_said(scene: Scene) -> None:
    scene.says("stage 1", HANGS)
    assert scene.failure().cause == LATE


def test_what_makes_no_sense_is_no_answer(scene: Scene) -> None:
    scene.says("stage 1", HANGS)
    answers(scene, "stage 2", nccl="yes")
    failure = scene.failure()
    assert "it sent a message without a valid 'nccl'" in failure.cause


def test_on_several_hosts_the_place_has_a_host(tmp_path: Path, clock: Clock) -> None:
    scene = Scene(tmp_path, clock, hang_timeout=30)
    scene.it._health.add(["stage 1", "stage 2"])
    scene.it.hosts.update({"stage 1": "node1", "stage 2": "node2"})
    scene.says("stage 1", HANGS)
    answers(scene, "stage 1")
    answers(scene, "stage 2")
    assert scene.failure().cause.endswith(
        "; its stacks are in logs/stage_1.log on node1; those of its neighbours in logs/stage_2.log on node2"
    )


def test_only_neighbours_and_replicas_are_asked(tmp_path: Path, clock: Clock) -> None:
    cuts = {"model": {"cuts": ["layer1", "layer2", "layer3"]}, "stages": {"2": {"replicas": 2}}}
    scene = Scene(tmp_path, clock, hang_timeout=30, **cuts)
    around = scene.it._stacks._around
    assert around("stage 2 replica 2") == ["stage 2 replica 2", "stage 1", "stage 2 replica 1", "stage 3"]
    assert around("stage 4") == ["stage 4", "stage 3"]
