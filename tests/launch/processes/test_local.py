"""How `onward train` follows a run that it has started: asking it to stop, starting it again, saying how it ended."""

from __future__ import annotations

import json
import signal
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from launch.errors import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_INTERRUPTED
from launch.failure import write_failure
from launch.prepare.placement import place
from launch.prepare.prepared_run import START_STEP, PreparedRun
from launch.prepare.resume import ResumePoint
from launch.processes import local as spawn
from launch.processes.supervise import Stop
from pipeline.errors import ConfigError
from tests.pipeline.small import small_config
from workers.control.failures import FailureReport
from workers.run.environment import PREPARED
from workers.run.files import RunDir
from workers.run.signals import WAKE


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path)
    run.log("serial").parent.mkdir()
    return run


def prepared(run: RunDir, start_step: int = 0, lock: tuple[int, ...] = (), **settings: Any) -> PreparedRun:
    config = small_config(**settings)
    return PreparedRun(config, run, place(config, 0), start_step, lock=lock)


class Child:
    """The process of a serial run, which ends as a test tells it to."""

    def __init__(self, asked: list[str], stop: Stop, wishes: int, ends: dict[str, int]) -> None:
        self.returncode: int | None = None
        self.pid = 4711
        self._asked, self._stop, self._wishes, self._ends = asked, stop, wishes, ends

    def poll(self) -> int | None:
        if self._stop.asked < self._wishes:
            self._stop.asked += 1
        elif not self._wishes:
            self.returncode = self._ends["by itself"]
        return self.returncode

    def send_signal(self, number: int) -> None:
        assert number == WAKE
        self._asked.append("leave")
        self.returncode = self._ends.get("leave")

    def kill(self) -> None:
        self._asked.append("kill")
        self.returncode = -signal.SIGKILL


@pytest.mark.parametrize(
    ("wishes", "ends", "asked", "code"),
    [
        (0, {"by itself": 0}, [], 0),
        (0, {"by itself": 3}, [], 3),
        (1, {"leave": 1}, ["leave"], 1),
        (2, {}, ["leave", "kill"], EXIT_INTERRUPTED),
    ],
)
def test_a_serial_run_is_first_asked_to_end_and_then_killed(
    run: RunDir, wishes: int, ends: dict[str, int], asked: list[str], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, heard = Stop(), list[str]()
    started: list[dict[str, Any]] = []

    def start(command: list[str], **settings: Any) -> Child:
        started.append(settings)
        return Child(heard, stop, wishes, ends)

    monkeypatch.setattr(spawn, "subprocess", SimpleNamespace(Popen=start, PIPE=-1))
    monkeypatch.setattr(spawn, "time", SimpleNamespace(sleep=lambda seconds: None))
    assert spawn._serial(prepared(run, start_step=6, lock=(5,), runtime="serial"), stop) == code
    assert heard == asked
    (settings,) = started
    assert (settings["env"][PREPARED], settings["env"][START_STEP]) == (str(run.path), "6")
    assert (settings["pass_fds"], settings["start_new_session"]) == ((5,), True)


def test_what_a_killed_process_was_writing_is_removed(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    stop, removed = Stop(), list[tuple[Path, int]]()
    child = Child([], stop, 0, {"by itself": -signal.SIGSEGV})
    monkeypatch.setattr(spawn, "subprocess", SimpleNamespace(Popen=lambda *_, **__: child, PIPE=-1))
    monkeypatch.setattr(spawn, "remove_temporaries", lambda of, pid: removed.append((of.path, pid)))
    assert spawn._serial(prepared(run, runtime="serial"), stop) == -signal.SIGSEGV
    assert removed == [(run.path, 4711)]


class Attempts:
    """Every attempt at a run ends as a test tells it to."""

    def __init__(self, run: RunDir, ends: list[tuple[int, str | None]], snapshots: list[int]) -> None:
        self.begun: list[int] = []
        self.rolled_back: list[int] = []
        self._run, self._ends, self._snapshots = run, ends, snapshots

    def supervise(self, attempt: PreparedRun) -> Any:
        self.begun.append(attempt.start_step)
        return nullcontext(SimpleNamespace(follow=self._follow))

    def find_resume_point(self, run: RunDir) -> ResumePoint:
        return ResumePoint(self._snapshots.pop(0))

    def roll_back(self, config: object, run: RunDir, steps: int, restarted: bool) -> None:
        assert restarted, "nobody stopped it in between"
        self.rolled_back.append(steps)

    def _follow(self, stop: Stop) -> int:
        code, kind = self._ends.pop(0)
        self._run.failure.unlink(missing_ok=True)
        if kind is not None:
            write_failure(self._run, FailureReport("stage 2", 5, kind, "broken"))
        return code


def repeated(
    run: RunDir,
    ends: list[tuple[int, str | None]],
    monkeypatch: pytest.MonkeyPatch,
    snapshots: tuple[int, ...] = (),
    restart: str = "job",
    asked: int = 0,
) -> tuple[int, Attempts]:
    attempts = Attempts(run, ends, [*snapshots])
    monkeypatch.setattr(spawn, "check_same_run", lambda config, run: config)
    monkeypatch.setattr(spawn, "find_resume_point", attempts.find_resume_point)
    monkeypatch.setattr(spawn, "roll_back", attempts.roll_back)
    first = prepared(run, restart=restart, max_restarts=2, snapshots={"every": 2})
    return spawn._repeat(first, Stop(asked), attempts.supervise), attempts


def test_a_run_that_failed_goes_on_from_its_newest_snapshot(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, attempts = repeated(run, [(1, "raised"), (1, "died"), (0, None)], monkeypatch, (4, 8))
    assert code == 0
    assert attempts.begun == [0, 4, 8]
    assert attempts.rolled_back == [4, 8]
    said = "stage 2 failed at step 5: broken. All processes start again (restart 1 of 2 without a new snapshot)"
    assert capsys.readouterr().out.splitlines() == [said, said]


def test_a_run_that_makes_no_headway_is_given_up(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first time it has a new snapshot to show, then it fails at the same place again and again."""
    code, attempts = repeated(run, [(1, "raised")] * 4, monkeypatch, (4, 4, 4))
    assert code == 1
    assert attempts.begun == [0, 4, 4]


@pytest.mark.parametrize(
    ("end", "settings"),
    [
        ((0, None), {}),
        ((1, None), {}),
        ((2, "bad_input"), {}),
        ((130, "interrupted"), {}),
        ((1, "given_up"), {}),
        ((1, "device_gone"), {}),
        ((1, "raised"), {"restart": "none"}),
        ((1, "raised"), {"asked": 1}),
    ],
)
def test_some_ends_are_final(
    run: RunDir, end: tuple[int, str | None], settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, attempts = repeated(run, [end], monkeypatch, **settings)
    assert (code, attempts.begun) == (end[0], [0])


def test_a_run_that_cannot_be_prepared_again_keeps_the_code_of_its_failure(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(self: Attempts, config: object, run: RunDir, steps: int, restarted: bool) -> None:
        raise ConfigError("run_dir", "cannot be written", "Free some space")

    monkeypatch.setattr(Attempts, "roll_back", refuse)
    code, attempts = repeated(run, [(1, "raised")], monkeypatch, (4,))
    assert (code, attempts.begun) == (1, [0])
    assert "error: run_dir: cannot be written. Free some space" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "code", "expected", "said"),
    [
        ("raised", 1, EXIT_FAILED, "error: stage 2 failed at step 5: broken"),
        ("bad_input", 1, EXIT_BAD_INPUT, "error: broken"),
        ("raised", 0, 0, ""),
        (None, 0, 0, ""),
        (None, EXIT_INTERRUPTED, EXIT_INTERRUPTED, "interrupted at once"),
        (None, -9, EXIT_FAILED, "error: the run ended with exit code -9 and could not write down why"),
    ],
)
def test_one_line_says_how_a_run_ended(
    run: RunDir, kind: str | None, code: int, expected: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if kind is not None:
        write_failure(run, FailureReport("stage 2", 5, kind, "broken"))
        assert json.loads(run.failure.read_text())["kind"] == kind
    assert spawn._report_end(run, code) == expected
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == bool(said)
    assert not said or lines[0].startswith(said)
