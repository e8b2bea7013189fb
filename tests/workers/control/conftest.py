"""Both ends of a control channel, and calls that wait in threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import LIMIT
from tests.workers.control.control_ends import KEY
from workers.control.channel import ControlClient, ControlServer


@pytest.fixture(params=["unix", "tcp"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ControlServer]:
    with ControlServer(str(tmp_path / "control") if request.param == "unix" else ("127.0.0.1", 0), KEY) as opened:
        yield opened
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def meanwhile() -> Iterator[Callable[..., Callable[[], Any]]]:
    """Run a call in a thread; the function returned waits for its outcome."""
    threads: list[threading.Thread] = []

    def start(call: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
        outcome: list[Any] = []

        def run() -> None:
            try:
                outcome.append(call(*arguments))
            except Exception as error:
                outcome.append(error)

        threads.append(threading.Thread(target=run))
        threads[-1].start()

        def result(thread: threading.Thread = threads[-1]) -> Any:
            thread.join(LIMIT)
            return outcome[0]

        return result

    yield start
    for thread in threads:
        thread.join(LIMIT)
        assert not thread.is_alive()


@pytest.fixture
def clients(
    server: ControlServer, meanwhile: Callable[..., Callable[[], Any]]
) -> Iterator[tuple[ControlClient, ControlClient]]:
    names = ("stage 1", "stage 2")
    connecting = [meanwhile(ControlClient.connect, server.address, KEY, name, LIMIT) for name in names]
    server.accept(set(names), LIMIT)
    one, two = connecting[0](), connecting[1]()
    yield one, two
    one.close()
    two.close()
