"""One attempt at a run as its parent follows it, with processes that do what a test tells them to."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from launch.errors import EXIT_FAILED, EXIT_INTERRUPTED
from launch.prepare.placement import place
from launch.prepare.prepared_run import PreparedRun
from launch.processes import supervise
from launch.processes.supervise import LEAVE_SECONDS, STACKS_SECONDS, Stop, Supervision
from tests.pipeline.small import small_config
from workers.coordinator.health import HELD, STOPPED
from workers.run.files import RunDir
from workers.run.signals import STACKS
from workers.run.stacks import MARK


class Clock:
    """Stands for the module `time`; passes only while the parent sleeps, and something may happen meanwhile."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.meanwhile: Callable[[], object] = lambda: None

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.meanwhile()


class Process:
    """One that was started; `code` is set when it ends."""

    def __init__(self, module: str, start: Any, environment: dict[str, str], log: Path, **_: object) -> None:
        self.module, self.start, self.environment, self.log = module, start, environment, log
        self.code: int | None = None
        self.told: list[dict[str, Any]] = []
        self.said: list[dict[str, Any]] = []
        self.waited: list[float | None] = []
        self.closed = False
        self.signals: list[int] = []
        self.follows: Callable[[], object] = lambda: None
        self.process = SimpleNamespace(pid=4711, poll=lambda: self.code, send_signal=self.send_signal)

    def send_signal(self, number: int) -> None:
        self.signals.append(number)
        self.follows()

    def send(self, message: dict[str, Any]) -> None:
        self.told.append(message)

    def messages(self) -> list[dict[str, Any]]:
        said, self.said = self.said, []
        return said

    def wait(self, timeout: float | None = None) -> int:
        self.waited.append(timeout)
        return 0 if self.code is None else self.code

    def close(self) -> None:
        self.closed = True


class Scene:
    """A run of two stages."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.run, self.clock = RunDir(folder), Clock()
        self.run.log("any").parent.mkdir()
        self.started: list[Process] = []

        def start(*arguments: Any, **settings: Any) -> Process:
            self.started.append(Process(*arguments))
            return self.started[-1]

        monkeypatch.setattr(supervise, "Child", start)
        monkeypatch.setattr(supervise, "time", self.clock)
        monkeypatch.setattr("workers.run.suspension.time", self.clock)
        config = small_config(model={"cuts": ["layer2"]}, hang_timeout=30)
        prepared = PreparedRun(config, self.run, place(config, 0), start_step=6)
        self.it = Supervision(prepared, server=None)  # type: ignore[arg-type]

    @property
    def coordinator(self) -> Process:
        return self.started[0]

    def stage(self, number: int) -> Process:
        """The one that trains it now."""
        return [process for process in self.started if process.log.stem == f"stage_{number}"][-1]

    def failure(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run.failure.read_text())
        return found


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(tmp_path, monkeypatch)


def test_all_processes_are_told_where_to_meet_and_none_is_left(scene: Scene) -> None:
    with scene.it:
        assert [process.module for process in scene.started] == [
            "launch.processes.coordinator_main",
            "launch.processes.stage_main",
            "launch.processes.stage_main",
        ]
        assert scene.coordinator.start.start_step == 6
        assert scene.coordinator.start.heartbeat_seconds == 1.0
        private = {process.start.private_dir for process in scene.started}
        (folder,) = (Path(each) for each in private)
        assert folder.stat().st_mode & 0o777 == 0o700
        assert [process.start.rank for process in scene.started[1:]] == [0, 1]
        assert [process.environment["RANK"] for process in scene.started[1:]] == ["0", "1"]
        scene.coordinator.code = 0
        assert scene.it.follow(Stop()) == 0
        assert all(process.waited[0] == LEAVE_SECONDS for process in scene.started[1:])
    assert all(process.closed for process in scene.started)
    assert not folder.exists()


def test_a_wish_to_stop_is_passed_on_once(scene: Scene) -> None:
    with scene.it:

        def end() -> None:
            if scene.clock.now > 1001.0:
                scene.coordinator.code = EXIT_INTERRUPTED

        scene.clock.meanwhile = end
        assert scene.it.follow(Stop(asked=1)) == EXIT_INTERRUPTED
        assert scene.coordinator.told == [{"type": "leave"}]
    assert not scene.run.failure.exists()


def test_a_second_wish_to_stop_waits_for_nobody(scene: Scene) -> None:
    with scene.it:
        assert scene.it.follow(Stop(asked=2)) == EXIT_INTERRUPTED
    assert scene.failure()["message"] == "interrupted at once"
    assert all(process.closed for process in scene.started)


def test_the_coordinator_hears_once_of_a_process_that_has_failed_and_never_of_one_that_is_done(scene: Scene) -> None:
    with scene.it:
        scene.stage(1).code, scene.stage(2).code = 0, -signal.SIGKILL

        def end() -> None:
            if scene.clock.now > 1001.0:
                scene.coordinator.code = EXIT_FAILED

        scene.clock.meanwhile = end
        assert scene.it.follow(Stop()) == EXIT_FAILED
        cause = "its process was killed by signal 9 (SIGKILL)"
        assert scene.coordinator.told == [{"type": "gone", "who": "stage 2", "cause": cause, "attempt": 0}]


def test_a_stage_that_the_coordinator_wants_back_is_started_again(scene: Scene) -> None:
    """Its first process is ended; the end of the second is told like that of the first."""
    with scene.it:
        before = scene.stage(2)
        before.code = 1
        scene.coordinator.said = [{"restart": ["stage 2"]}]

        def later() -> None:
            if scene.stage(2) is not before:
                scene.stage(2).code = 3
            if scene.clock.now > 1001.0:
                scene.coordinator.code = EXIT_FAILED

        scene.clock.meanwhile = later
        scene.it.follow(Stop())
        assert before.closed
        assert (scene.stage(2) is not before, len(scene.started)) == (True, 4)
        assert scene.stage(2).start == before.start
        told = [(message["cause"], message["attempt"]) for message in scene.coordinator.told]
        assert told == [("its process ended with exit code 1", 0), ("its process ended with exit code 3", 1)]


def test_a_coordinator_that_is_killed_leaves_a_record(scene: Scene) -> None:
    with scene.it:
        scene.coordinator.code = -signal.SIGKILL
        assert scene.it.follow(Stop()) == EXIT_FAILED
    assert scene.failure()["message"] == "coordinator failed: its process was killed by signal 9 (SIGKILL)"


def test_a_coordinator_without_a_sign_of_life_is_ended(scene: Scene) -> None:
    with scene.it:
        scene.coordinator.said = [{"beat": True}]
        assert scene.it.follow(Stop()) == EXIT_FAILED
        assert scene.coordinator.closed
        assert 30 < scene.clock.now - 1000 < 31 + STACKS_SECONDS
    assert scene.failure()["kind"] == "hung"
    assert scene.failure()["message"].endswith(f"no sign of life for 30 s (hang_timeout): {STOPPED}")


def test_a_coordinator_that_still_answers_a_signal_writes_its_stacks(scene: Scene) -> None:
    with scene.it:
        log = scene.run.log("coordinator")
        scene.coordinator.follows = lambda: log.write_bytes(MARK)
        scene.coordinator.said = [{"beat": True}]
        assert scene.it.follow(Stop()) == EXIT_FAILED
        assert scene.coordinator.signals == [STACKS]
    assert scene.failure()["message"].endswith(f"(hang_timeout): {HELD}; its stacks are in logs/coordinator.log")


def test_those_of_whom_the_coordinator_wants_the_stacks_get_a_signal(scene: Scene) -> None:
    with scene.it:
        scene.coordinator.said = [{"stacks": ["stage 2"]}]

        def end() -> None:
            scene.coordinator.code = 0

        scene.clock.meanwhile = end
        scene.it.follow(Stop())
        assert [process.signals for process in scene.started] == [[], [], [STACKS]]


def test_before_its_first_sign_of_life_a_coordinator_may_take_its_time(scene: Scene) -> None:
    with scene.it:

        def end() -> None:
            if scene.clock.now > 1100.0:
                scene.coordinator.code = 0

        scene.clock.meanwhile = end
        assert scene.it.follow(Stop()) == 0


def test_a_parent_that_stood_still_itself_blames_nobody(scene: Scene) -> None:
    """The job was suspended, or the laptop closed: the coordinator slept as long."""
    with scene.it:
        scene.coordinator.said = [{"beat": True}]
        slept: list[int] = []

        def sleep() -> None:
            if not slept:
                slept.append(1)
                scene.clock.now += 3600.0
            elif scene.clock.now > 1000.0 + 3600.0 + 20.0:
                scene.coordinator.code = 0

        scene.clock.meanwhile = sleep
        assert scene.it.follow(Stop()) == 0


def test_a_start_that_fails_leaves_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = supervise.Child

    def start(module: str, *arguments: Any, **settings: Any) -> Any:
        if module == "launch.processes.stage_main":
            raise OSError("no more processes")
        return whole(module, *arguments, **settings)

    monkeypatch.setattr(supervise, "Child", start)
    with pytest.raises(OSError, match="no more processes"), scene.it:
        pass
    assert scene.coordinator.closed
    assert not Path(scene.coordinator.start.private_dir).exists()
