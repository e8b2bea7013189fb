"""A rank ends the agent that would wait for a store that nobody reaches, and no other program."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from launch.processes import waiting_agent
from launch.processes.waiting_agent import end_waiting_agent
from workers.links.wire import how_it_ended

CAUSE = f"stage 3: the coordinator {how_it_ended(TimeoutError(110, 'Connection timed out'), 'it')}"

AGENT = 4242


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[tuple[int, int]]]:
    """Who is sent which signal, by a rank whose parent has this command line."""

    def run(*words: str, cause: str = CAUSE, obeys: bool = True, **environment: str) -> list[tuple[int, int]]:
        sent: list[tuple[int, int]] = []
        file = tmp_path / "cmdline"
        file.write_bytes("\0".join(words).encode())
        for name in ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_MAX_RESTARTS"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(waiting_agent, "Path", lambda path: file if str(path).startswith("/proc/") else Path(path))
        monkeypatch.setattr(os, "kill", lambda *given: sent.append(given))
        monkeypatch.setattr(os, "getppid", lambda: 1 if sent and obeys else AGENT)
        monkeypatch.setattr(waiting_agent, "OBEY_SECONDS", 0.0)
        assert end_waiting_agent(cause) == bool(sent)
        return sent

    return run


@pytest.mark.parametrize("words", [("/usr/bin/python", "/env/bin/torchrun"), ("python", "-m", "torch.distributed.run")])
def test_an_agent_that_starts_nothing_again_is_asked(asked: Callable[..., object], words: tuple[str, ...]) -> None:
    given = {"TORCHELASTIC_RUN_ID": "a", "TORCHELASTIC_MAX_RESTARTS": "0"}
    assert asked(*words, "-m", "launch.train", **given) == [(AGENT, signal.SIGTERM)]
    ended = [(AGENT, signal.SIGTERM), (AGENT, signal.SIGKILL)]
    assert asked(*words, "-m", "launch.train", obeys=False, **given) == ended, "it is in the call itself"


@pytest.mark.parametrize(
    ("words", "cause", "environment"),
    [
        (("torchrun",), CAUSE, {"TORCHELASTIC_RUN_ID": "a", "TORCHELASTIC_MAX_RESTARTS": "2"}),
        (("torchrun",), CAUSE, {}),
        (("python", "mine.py"), CAUSE, {"TORCHELASTIC_RUN_ID": "a"}),
        (("torchrun",), "stage 3 has ended", {"TORCHELASTIC_RUN_ID": "a"}),
    ],
    ids=["it may start them again", "by hand", "a program of the user's", "another failure"],
)
def test_nobody_else_is(
    asked: Callable[..., object], words: tuple[str, ...], cause: str, environment: dict[str, str]
) -> None:
    assert asked(*words, cause=cause, **environment) == []
