"""What a parent and its child say to each other through two pipes; the child is played by the test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from launch.processes import child as children
from launch.processes.child import Child, ended
from pipeline.errors import TrainingError
from tests.waiting import LIMIT
from workers.control.start_messages import StageStart
from workers.run import json_lines

START = StageStart(run_dir="/runs/one", private_dir="/private", rank=0, device="cpu")


class Server:
    """Keeps the child's ends of the pipes, as a forked process would."""

    def __init__(self) -> None:
        self.killed = 0
        self.hangs = True

    def start(self, module: str, title: str, environment: dict[str, str], descriptors: Sequence[int]) -> Any:
        self.title = title
        self.orders, self.answers = os.dup(descriptors[0]), os.dup(descriptors[3])
        return SimpleNamespace(pid=4711, wait=self.wait, kill=self.kill, poll=lambda: None)

    def wait(self, timeout: float | None) -> int:
        if self.hangs and not self.killed:
            raise subprocess.TimeoutExpired("child", timeout or 0.0)
        return -signal.SIGKILL if self.killed else 0

    def kill(self) -> None:
        self.killed += 1

    def hear(self) -> list[Any]:
        return [json.loads(line) for line in os.read(self.orders, 65536).splitlines()]

    def say(self, text: bytes) -> None:
        os.write(self.answers, text)


@pytest.fixture
def server() -> Iterator[Server]:
    opened = Server()
    yield opened
    for descriptor in (opened.orders, opened.answers):
        os.close(descriptor)


@pytest.fixture
def child(server: Server, tmp_path: Path) -> Iterator[Child]:
    log = tmp_path / "stage_1.log"
    made = Child("launch.processes.stage_main", START, {}, log, server=server)  # type: ignore[arg-type]
    yield made
    made.close()


def test_a_child_is_told_first_what_it_was_started_for(child: Child, server: Server) -> None:
    child.send({"type": "leave"})
    assert server.hear() == [START.to_message(), {"type": "leave"}]
    assert server.title == "onward launch.processes.stage_main stage_1 /runs/one"


def test_words_are_heard_whole_however_they_come(child: Child, server: Server) -> None:
    server.say(b'{"control": "/priv')
    assert child.messages() == []
    server.say(b'ate"}\n{"beat": true}\n{"be')
    assert child.messages() == [{"control": "/private"}, {"beat": True}]
    assert child.messages() == []
    server.say(b'at": false}\n')
    assert child.messages(LIMIT) == [{"beat": False}]


def test_the_first_word_of_a_child_that_says_nothing_is_missed(child: Child) -> None:
    with pytest.raises(TrainingError, match=r"the coordinator did not start; see logs/coordinator\.log"):
        child.first_message(0.0)


def test_a_child_that_has_gone_is_told_nothing_and_heard_no_more(tmp_path: Path) -> None:
    server = Server()
    child = Child("launch.processes.stage_main", START, {}, tmp_path / "log", server=server)  # type: ignore[arg-type]
    os.close(server.orders)
    os.close(server.answers)
    child.send({"type": "leave"})  # nobody reads it
    assert child.messages(LIMIT) == []
    child.close()
    child.close()  # again: its pipes are closed
    assert server.killed


def test_whoever_does_not_end_in_time_is_killed(child: Child, server: Server) -> None:
    assert child.wait(0.0) == -signal.SIGKILL
    assert server.killed == 1


def test_whoever_has_ended_is_not_killed(child: Child, server: Server) -> None:
    server.hangs = False
    assert child.wait() == 0
    assert server.killed == 0


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (-signal.SIGKILL, "its process was killed by signal 9 (SIGKILL)"),
        (3, "its process ended with exit code 3"),
    ],
)
def test_how_a_process_ended(code: int, words: str) -> None:
    assert ended(code) == words


def given(monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    """Standard input, as a process reads it byte by byte or in pieces."""
    rest = bytearray(text)

    def read(descriptor: int, size: int) -> bytes:
        assert descriptor == 0
        piece = bytes(rest[:size])
        del rest[:size]
        return piece

    monkeypatch.setattr(json_lines, "os", SimpleNamespace(read=read))
    monkeypatch.setattr(json_lines, "readable", lambda descriptors, timeout: set(descriptors))


def test_what_follows_the_first_line_is_left_for_whoever_listens_then(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, json.dumps(START.to_message()).encode() + b'\n{"type": "leave"}\n{"type": "gone"}\n')
    assert children.read_start(StageStart) == START
    heard: list[Any] = []
    orphaned: list[int] = []
    monkeypatch.setattr(children.threading, "Thread", At)
    children.listen_to_parent(heard.append, lambda: orphaned.append(len(heard)))
    assert heard == [{"type": "leave"}, {"type": "gone"}]
    assert orphaned == [2]


class At:
    """A thread that has done its work when it was started."""

    def __init__(self, target: Any, **_: object) -> None:
        self.start = target


def test_a_process_that_was_started_by_hand_says_who_starts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, b"no line")
    with pytest.raises(SystemExit, match="started by 'onward train' or torchrun, not by hand"):
        children.read_start(StageStart)
