"""What rank 0 of torchrun makes of the end of its coordinator, and what the other ranks make of rank 0's word."""

from __future__ import annotations

import json
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import pytest

from launch import train
from launch.exit_codes import EXIT_BAD_INPUT, EXIT_FAILED
from launch.failure import record_failure
from launch.rank_run import NothingToDo
from launch.train import Prepared
from pipeline.errors import UserError
from workers.failures import Interrupted, Sign
from workers.groups import RunGroup
from workers.run_files import RunDir

KILLED = "error: coordinator failed: its process was killed by signal 9 (SIGKILL)"


class Group:
    """Stands for the processes that torchrun started."""

    def __init__(self, rank: int, word: dict[str, Any] | None = None) -> None:
        self.rank = rank
        self.published: list[tuple[str, str, dict[str, Any]]] = []
        self._word = word or {}

    def publish(self, name: str, word: dict[str, Any]) -> None:
        self.published.append(("first", name, word))

    def publish_last(self, name: str, word: dict[str, Any]) -> None:
        self.published.append(("last", name, word))

    def look_up(self, name: str, timeout: float) -> dict[str, Any]:
        assert name == "run"
        return self._word


class Coordinator:
    """Ends with the codes it is given; `Interrupted` stands for a signal to the process that waits."""

    def __init__(self, *ends: int | type[BaseException]) -> None:
        self._ends = list(ends)
        self.limits: list[float | None] = []

    def wait(self, limit: float | None) -> int:
        self.limits.append(limit)
        end = self._ends.pop(0)
        if isinstance(end, int):
            return end
        raise end("asked to stop")


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path)


def lead(
    run: RunDir, coordinator: Coordinator, finished: bool, monkeypatch: pytest.MonkeyPatch
) -> tuple[int, Group, Prepared]:
    group, prepared = Group(0), Prepared(str(run.path), "private", "", "", "control")
    monkeypatch.setattr(train, "prepared_run", lambda arguments, stack, group: (None, run, 0, ()))
    monkeypatch.setattr(train, "_start_coordinator", lambda *_: (coordinator, prepared))
    monkeypatch.setattr(train, "_train", lambda *_: finished)
    return train._lead(cast(RunGroup, group), ["config.yaml"]), group, prepared


def test_a_coordinator_that_is_killed_leaves_a_record_of_it(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    code, *_ = lead(run, Coordinator(-signal.SIGKILL), False, monkeypatch)
    assert code == -signal.SIGKILL
    assert KILLED in capfd.readouterr().err
    recorded = json.loads(run.failure.read_text())
    assert (recorded["who"], recorded["kind"], recorded["exit_code"]) == ("coordinator", "died", EXIT_FAILED)


def test_a_record_that_is_there_says_more_than_the_end_of_the_coordinator(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    record_failure(run, Sign("stage 2", 5, "raised", "out of memory"))
    before = run.failure.read_text()
    capfd.readouterr()
    code, *_ = lead(run, Coordinator(-signal.SIGKILL), False, monkeypatch)
    assert code == -signal.SIGKILL
    assert run.failure.read_text() == before
    said = capfd.readouterr().err
    assert "error: stage 2 failed at step 5: out of memory" in said
    assert "coordinator" not in said


@pytest.mark.parametrize(("finished", "code", "expected"), [(True, 0, 0), (True, 1, 1), (False, 0, EXIT_FAILED)])
def test_a_run_has_succeeded_if_its_stages_and_its_coordinator_have(
    run: RunDir, finished: bool, code: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinator = Coordinator(code)
    found, group, prepared = lead(run, coordinator, finished, monkeypatch)
    assert found == expected
    assert not run.failure.exists()
    assert group.published == [("first", "run", vars(prepared))]
    assert coordinator.limits == [None if finished else train.LEAVE_SECONDS]


def test_whoever_is_interrupted_while_waiting_for_the_coordinator_still_waits_a_while(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinator = Coordinator(Interrupted, 130)
    code, *_ = lead(run, coordinator, True, monkeypatch)
    assert code == 130
    assert coordinator.limits == [None, train.LEAVE_SECONDS]


@pytest.mark.parametrize(("reason", "finished"), [(UserError("no such file"), False), (NothingToDo(), True)])
def test_the_other_ranks_hear_that_there_is_no_run_and_whether_that_is_well(
    reason: Exception, finished: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(arguments: list[str], stack: ExitStack, group: Group) -> None:
        raise reason

    group = Group(0)
    monkeypatch.setattr(train, "prepared_run", refuse)
    with pytest.raises(type(reason)):
        train._lead(cast(RunGroup, group), ["config.yaml"])
    assert group.published == [("last", "run", {"run_dir": "", "finished": finished})]


@pytest.mark.parametrize(("finished", "code"), [(True, 0), (False, EXIT_BAD_INPUT)])
def test_a_rank_that_hears_of_no_run_leaves_with_the_code_of_rank_0(finished: bool, code: int) -> None:
    assert train._follow(cast(RunGroup, Group(1, {"run_dir": "", "finished": finished}))) == code


@pytest.mark.parametrize(("finished", "code"), [(True, 0), (False, EXIT_FAILED)])
def test_a_rank_leaves_with_what_became_of_its_stages(
    finished: bool, code: int, run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    word = vars(Prepared(str(run.path), "private", "key", "store", ["host", 1]))
    trained: list[tuple[Any, ...]] = []
    monkeypatch.setattr(train, "read_config", lambda path: f"the configuration in {path}")
    monkeypatch.setattr(train, "_train", lambda *given: trained.append(given) or finished)
    group = Group(1, word)
    assert train._follow(cast(RunGroup, group)) == code
    [(with_group, config, place, prepared)] = trained
    assert (with_group, config) == (group, f"the configuration in {run.path}")
    assert (place.path, prepared) == (run.path, Prepared(**word))
