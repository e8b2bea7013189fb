"""The coordinator's process as its parent sees it: what they tell each other, and what remains when one goes."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from launch.errors import EXIT_BAD_INPUT, EXIT_FAILED
from launch.failure import read_failure, write_failure
from launch.processes import coordinator_main as coordinate
from launch.processes.coordinator_main import Parent
from pipeline.errors import UserError
from tests.waiting import wait_until
from workers.control.failures import FailureReport
from workers.control.start_messages import CoordinatorStart
from workers.coordinator.coordinator import Coordinator
from workers.run.files import RunDir
from workers.topology.processes import KEY_FILE

START = CoordinatorStart(run_dir="/runs/one", device="cpu", start_step=7, parent="stage 1")


@pytest.fixture
def pipe() -> Iterator[tuple[int, Callable[[], list[Any]]]]:
    """An end to write to, and what was written there since."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    yield writer, lambda: [json.loads(line) for line in os.read(reader, 65536).splitlines()]
    os.close(reader)
    os.close(writer)


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """The folder of the sockets, with the key."""
    folder = tmp_path / "private"
    folder.mkdir()
    (folder / KEY_FILE).write_text("00ff")
    return folder


def test_the_parent_is_told_where_the_control_channel_is_and_whom_to_start_again(
    pipe: tuple[int, Callable[[], list[Any]]],
) -> None:
    answers, told = pipe
    parent = Parent(answers)
    parent.announce("/private/control")
    parent.announce(("host", 29500))
    parent.restart(["stage 1", "stage 2"])
    parent.signal_stacks(["stage 3"])
    assert told() == [
        {"control": "/private/control"},
        {"control": ["host", 29500]},
        {"restart": ["stage 1", "stage 2"]},
        {"stacks": ["stage 3"]},
    ]


def test_notes_of_the_parent_are_read_once_and_in_order() -> None:
    parent = Parent(-1)
    for number in range(3):
        parent.add_event({"note": number})
    assert parent.events() == [{"note": 0}, {"note": 1}, {"note": 2}]
    assert parent.events() == []


def test_signs_of_life_end_with_the_pipe_and_without_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    unheard: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", unheard.append)
    reader, writer = os.pipe()
    Parent(writer).beat(0.001)
    assert json.loads(os.read(reader, 4096).splitlines()[0]) == {"beat": True}
    os.close(reader)
    wait_until(lambda: all(thread.name != "heartbeat" for thread in threading.enumerate()), "the end of the heartbeat")
    os.close(writer)
    assert unheard == []


def test_the_first_signal_asks_to_leave_and_prepares_for_the_second() -> None:
    parent, before = Parent(-1), signal.getsignal(signal.SIGUSR1)
    try:
        coordinate._first_signal(parent, [signal.SIGUSR1])
        assert parent.events() == [{"type": "leave"}]
        assert signal.getsignal(signal.SIGUSR1) is coordinate.raise_interrupted
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_processes_of_one_host_meet_in_a_folder_and_those_of_several_at_an_address(private: Path) -> None:
    alone = coordinate._rendezvous(replace(START, private_dir=str(private)))
    assert (alone.private_dir, alone.key, alone.control) == (str(private), b"\x00\xff", str(private / "control"))
    several = coordinate._rendezvous(replace(START, host="10.0.0.1", key="0a", store="tcp://10.0.0.1:1"))
    assert (several.private_dir, several.key, several.control) == ("", b"\n", ("10.0.0.1", 0))
    assert (several.store, several.host, several.rpc_init) == ("tcp://10.0.0.1:1", "10.0.0.1", "env://")


class Ending:
    """Stands for the coordinator: does what a test tells it to."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.run = act

    def __call__(self, *arguments: Any, **settings: Any) -> Ending:
        self.given, self.settings = arguments, settings
        return self


@pytest.fixture
def started(private: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CoordinatorStart:
    """What the process is started with; it reads no configuration, and asks for no signals."""
    start = replace(START, run_dir=str(tmp_path), private_dir=str(private))
    monkeypatch.setattr(coordinate, "read_start", lambda form: start)
    monkeypatch.setattr(coordinate, "read_config", lambda path: f"the configuration in {path}")
    monkeypatch.setattr(coordinate, "stop_signals", lambda config: ())
    monkeypatch.setattr(coordinate, "listen_to_parent", lambda heard, orphaned: None)
    monkeypatch.setattr(logging, "basicConfig", lambda **settings: None)
    return start


def _refuse() -> None:
    raise UserError("the data set is gone")


def _break() -> None:
    raise RuntimeError("a mistake of ours")


@pytest.mark.parametrize(
    ("act", "code", "kind"),
    [(lambda: None, 0, None), (_refuse, EXIT_BAD_INPUT, "bad_input"), (_break, EXIT_FAILED, "raised")],
)
def test_the_exit_code_says_how_the_run_ended_and_the_sockets_are_gone(
    act: Callable[[], None],
    code: int,
    kind: str | None,
    started: CoordinatorStart,
    private: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    coordinator = Ending(act)
    monkeypatch.setattr(coordinate, "Coordinator", coordinator)
    assert coordinate.main(-1) == code
    assert (read_failure(RunDir(tmp_path)) or {"kind": None})["kind"] == kind
    assert coordinator.given[0] == f"the configuration in {tmp_path}"
    assert coordinator.settings["start_step"] == 7
    assert not private.exists()


class Exited(Exception):
    """Stands for the end of the process."""


@pytest.fixture
def timers(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """What was to be done later; the end of the process is an exception."""
    later: list[Callable[[], None]] = []

    def timer(seconds: float, act: Callable[[], None]) -> Any:
        assert seconds == coordinate.ORPHAN_SECONDS
        return SimpleNamespace(start=lambda: later.append(act))

    def leave(code: int) -> None:
        raise Exited(code)

    monkeypatch.setattr(coordinate.threading, "Timer", timer)
    monkeypatch.setattr(coordinate.os, "_exit", leave)
    return later


@pytest.mark.parametrize("written", [False, True])
def test_an_orphan_that_does_not_end_by_itself_writes_down_why_tidies_up_and_goes(
    written: bool, timers: list[Callable[[], None]], private: Path, tmp_path: Path
) -> None:
    run, lost = RunDir(tmp_path), []
    orphan = SimpleNamespace(
        monitor=SimpleNamespace(process_lost=lambda *words: lost.append(words)),
    )
    coordinate._orphaned(cast(Coordinator, orphan), run, replace(START, private_dir=str(private)))
    assert lost == [("stage 1", "its process ended without a word")]
    assert private.exists()  # the run may still end in order
    if written:
        write_failure(run, FailureReport("stage 2", 5, "raised", "out of memory"))
    with pytest.raises(Exited, match="1"):
        timers[0]()
    failure = read_failure(run)
    assert failure is not None
    assert failure["kind"] == ("raised" if written else "died")
    assert written or failure["message"] == "stage 1 failed: its process ended without a word"
    assert not private.exists()
