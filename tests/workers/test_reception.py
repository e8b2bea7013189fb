"""Who connects to the coordinator while a run is going on: strangers cost little, and who is expected gets in."""

from __future__ import annotations

import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from multiprocessing import AuthenticationError
from pathlib import Path
from typing import Any

import pytest

from workers.links import reception, wire
from workers.links.control import ControlClient, ControlClosed, ControlServer

KEY = b"the key of the run"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ControlServer]:
    with ControlServer(str(tmp_path / "control"), KEY) as opened:
        yield opened


class Joining(threading.Thread):
    """A client that connects in the background."""

    def __init__(self, server: ControlServer, name: str) -> None:
        super().__init__()
        self._server, self._as = server, name
        self.outcome: Any = None
        self.start()

    def run(self) -> None:
        try:
            self.outcome = ControlClient.connect(self._server.address, KEY, self._as, 10)
        except ControlClosed as error:
            self.outcome = error

    def result(self) -> Any:
        self.join(10)
        return self.outcome


def polled(server: ControlServer, until: threading.Thread) -> list[tuple[str, Any]]:
    news = []
    while until.is_alive():
        news += server.poll(0.02)
    return news


def test_only_the_owner_may_use_the_socket(server: ControlServer) -> None:
    assert stat.S_IMODE(os.stat(str(server.address)).st_mode) == 0o600


def test_strangers_are_refused_between_two_calls_of_accept(
    server: ControlServer, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(AuthenticationError):
        wire.connect(server.address, b"wrong", 5)
    joining = Joining(server, "stage 1\n\x1b[2J")
    polled(server, joining)
    assert "is not expected" in str(joining.result())
    assert r"refused a client: 'stage 1\n\x1b[2J' is not expected" in caplog.text
    assert "control: refused a connection (digest received was wrong)" in caplog.text


def test_a_peer_that_sends_a_byte_now_and_then_is_dropped_in_time() -> None:
    ours, theirs = socket.socketpair()
    stop = threading.Event()

    def trickle() -> None:
        while not stop.wait(0.05):
            try:
                theirs.send(b"\0")
            except OSError:
                return

    thread = threading.Thread(target=trickle)
    thread.start()
    started = time.monotonic()
    with pytest.raises((EOFError, OSError, AuthenticationError)):
        wire.welcome(ours, KEY, 0.5)
    assert time.monotonic() - started < 1.5
    stop.set()
    thread.join()
    theirs.close()


def test_many_silent_strangers_exhaust_nothing(
    server: ControlServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reception, "HELLO_SECONDS", 0.5)
    threads = threading.active_count()
    with ExitStack() as stack:
        for _ in range(reception.MAX_STRANGERS + 40):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.connect(str(server.address))
        # Each has a thread, and the timer that ends it.
        assert threading.active_count() <= threads + 2 * reception.MAX_STRANGERS
        time.sleep(1.0)
    assert "others have yet to say who they are" in caplog.text
    joining = Joining(server, "stage 1")
    server.accept({"stage 1"}, 10)
    joining.result().close()


def test_who_comes_back_before_its_end_was_read_gets_in_once_it_is(server: ControlServer) -> None:
    first = Joining(server, "stage 1")
    server.accept({"stage 1"}, 10)
    assert server.connected() == {"stage 1"}
    first.result().send({"last": "words"})
    first.result().close()
    assert server.connected() == set()
    second = Joining(server, "stage 1")
    time.sleep(0.3)
    assert server.poll(1) == [("stage 1", {"last": "words"})]
    assert server.poll(1) == [("stage 1", None)]
    server.accept({"stage 1"}, 10)
    server.send("stage 1", {"welcome": "back"})
    with second.result() as again:
        assert again.poll(5) == {"welcome": "back"}
        assert server.connected() == {"stage 1"}


def test_who_waits_to_come_back_and_dies_makes_room_for_the_next(server: ControlServer) -> None:
    first = Joining(server, "stage 1")
    server.accept({"stage 1"}, 10)
    first.result().close()
    assert server.poll(1) == [("stage 1", None)]
    dead = wire.connect(server.address, KEY, 5)
    dead.send_bytes(b'{"hello": "stage 1"}')
    time.sleep(0.3)
    server.poll(0)
    dead.close()
    second = Joining(server, "stage 1")
    time.sleep(0.3)
    server.accept({"stage 1"}, 10)
    assert isinstance(second.result(), ControlClient)
    second.result().close()


def test_why_a_client_was_dropped_is_kept(server: ControlServer) -> None:
    joining = Joining(server, "stage 1")
    server.accept({"stage 1"}, 10)
    joining.result()._connection.send_bytes(b"{")
    assert server.poll(5) == [("stage 1", None)]
    assert "not JSON" in server.dropped["stage 1"]
    joining.result().close()
