"""What rank 0 of torchrun makes of the end of its coordinator, and what the other ranks make of rank 0's word."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import pytest

from launch.errors import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_INTERRUPTED
from launch.failure import record_failure
from launch.prepare.prepared_run import PreparedRun
from launch.processes import torchrun as train
from launch.processes.announcement import Announcement, UntrustedAnnouncementError
from pipeline.config import Config
from pipeline.errors import UserError
from tests.pipeline.small import small_config
from workers.control.failures import FailureReport, Interrupted
from workers.run.files import RunDir
from workers.run.keys import write_key
from workers.run.signals import PARENT_GONE, WARNINGS
from workers.topology.processes import KEY_FILE
from workers.topology.torchrun import RunGroup

KEY = bytes(range(32))
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

    def failed(self) -> None:
        raise RuntimeError("the store has ended")

    def wait_for_rank_0(self, limit: float) -> None:
        self.waited = limit

    def look_up_valid(self, name: str, timeout: float, believed: Callable[[dict[str, Any]], Any]) -> Any:
        assert name == "run"
        return believed(self._word)


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


@pytest.fixture(autouse=True)
def _signals_stay() -> Iterator[None]:
    """Rank 0 lets those that end it raise."""
    numbers = (signal.SIGTERM, signal.SIGINT, PARENT_GONE, *WARNINGS)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path)


def lead(
    run: RunDir, coordinator: Coordinator, finished: bool, monkeypatch: pytest.MonkeyPatch
) -> tuple[int, Group, Announcement]:
    group, announcement = (
        Group(0),
        Announcement(run_dir=str(run.path), private_dir=str(run.path), store="", control="control"),
    )
    write_key(run.path / KEY_FILE)
    monkeypatch.setattr(train, "rank_run", lambda *_: nullcontext(PreparedRun(small_config(), run, ())))
    monkeypatch.setattr(train, "start_coordinator", lambda *_: (coordinator, announcement, KEY))
    monkeypatch.setattr(train, "_train", lambda *_: "done" if finished else "failed")
    return train._lead(cast(RunGroup, group), ["config.yaml"]), group, announcement


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
    record_failure(run, FailureReport("stage 2", 5, "raised", "out of memory"))
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
    found, group, announcement = lead(run, coordinator, finished, monkeypatch)
    assert found == expected
    assert not run.failure.exists()
    assert group.published == [("first", "run", announcement.signed(KEY))]
    assert coordinator.limits == [None if finished else train.LEAVE_SECONDS]


def test_whoever_is_interrupted_while_waiting_for_the_coordinator_still_waits_a_while(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinator = Coordinator(Interrupted, 130)
    code, *_ = lead(run, coordinator, True, monkeypatch)
    assert code == 130
    assert coordinator.limits == [None, train.LEAVE_SECONDS]


@pytest.mark.parametrize("finished", [False, True])
def test_the_other_ranks_hear_that_there_is_no_run_and_whether_that_is_well(
    finished: bool, run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def rank_run(arguments: list[str], group: Group, shared: bool, hosts: tuple[str, ...]) -> Iterator[PreparedRun]:
        if not finished:
            raise UserError("no such file")
        yield PreparedRun(small_config(), run, (), finished=True)

    group = Group(0)
    monkeypatch.setattr(train, "rank_run", rank_run)
    with nullcontext() if finished else pytest.raises(UserError):
        assert train._lead(cast(RunGroup, group), ["config.yaml"]) == 0
    why = {} if finished else {"problem": "no such file"}
    assert group.published == [("last", "run", {"run_dir": "", "finished": finished, **why})]


@pytest.mark.parametrize(("finished", "code"), [(True, 0), (False, EXIT_BAD_INPUT)])
def test_a_rank_that_hears_of_no_run_leaves_with_the_code_of_rank_0(finished: bool, code: int) -> None:
    assert train._follow(cast(RunGroup, Group(1, {"run_dir": "", "finished": finished})), ["config.yaml"]) == code


@pytest.mark.parametrize(
    ("outcome", "agent", "code"),
    [("done", False, 0), ("failed", False, EXIT_FAILED), ("left", False, EXIT_INTERRUPTED), ("left", True, 0)],
)
def test_a_rank_leaves_with_what_became_of_its_stages(
    outcome: str, agent: bool, code: int, run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    word = {"run_dir": str(run.path)}
    trained: list[tuple[Any, ...]] = []
    announcement = Announcement(run_dir=str(run.path), private_dir=str(run.path), store="", control="control")
    write_key(run.path / KEY_FILE)
    monkeypatch.setattr(train, "own_config", lambda arguments: (small_config(), []))
    monkeypatch.setattr(train, "verify", lambda message, config: (run, announcement, KEY, config))
    monkeypatch.setattr(train, "_train", lambda *given, failed: trained.append(given) or outcome)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "run") if agent else monkeypatch.delenv("TORCHELASTIC_RUN_ID", False)
    group = Group(1, word)
    assert train._follow(cast(RunGroup, group), ["config.yaml"]) == code
    [(with_group, config, place, rendezvous)] = trained
    assert (with_group, place.path) == (group, run.path)
    own = small_config(run_dir=str(run.path), link={"kind": "queue"})
    assert config == own, "its own, and not what the store says"
    assert rendezvous == announcement.rendezvous(KEY)


def test_a_word_that_is_not_of_rank_0_is_passed_over_and_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(message: dict[str, Any], config: Config) -> None:
        raise UntrustedAnnouncementError("it has no signature")

    monkeypatch.setattr(train, "own_config", lambda arguments: (small_config(), []))
    monkeypatch.setattr(train, "verify", refuse)
    group = Group(1, {"run_dir": "/of/somebody/else"})
    with pytest.raises(TypeError):  # this group gives up where a real one goes on waiting
        train._follow(cast(RunGroup, group), ["config.yaml"])
    assert "rank 1: ignored an announcement in torchrun's store" in capsys.readouterr().err
