"""Who connects to the coordinator while a run is going on: strangers cost little, and who is expected gets in."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from multiprocessing import AuthenticationError
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import LIMIT, wait_until
from workers.control import acceptor as reception
from workers.control.channel import ControlClient, ControlClosed, ControlServer
from workers.links import wire

KEY = b"the key of the run"
ANSWER_BYTES = 250
"""As many as a challenge may be answered with, about."""


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
            self.outcome = ControlClient.connect(self._server.address, KEY, self._as, LIMIT)
        except ControlClosed as error:
            self.outcome = error

    def result(self) -> Any:
        self.join(LIMIT)
        return self.outcome


def await_arrival(server: ControlServer) -> None:
    """Somebody has said a name and is yet to be let in."""
    wait_until(server._acceptor._accepted.qsize, "somebody")


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
        wire.connect(server.address, b"wrong", LIMIT)
    joining = Joining(server, "stage 1\n\x1b[2J")
    polled(server, joining)
    assert "is not expected" in str(joining.result())
    assert r"refused a client: 'stage 1\n\x1b[2J' is not expected" in caplog.text
    wait_until(lambda: "control: refused a connection (digest received was wrong)" in caplog.text, "the warning")


def test_a_peer_that_sends_a_byte_now_and_then_is_dropped_before_it_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answer would be a wrong one. It takes ten times as long as it may, and the kernel does not end it."""
    monkeypatch.setattr(wire, "limit_io", lambda connection, limit: None)
    ours, theirs = socket.socketpair()
    stop, sent = threading.Event(), 0

    def trickle() -> None:
        nonlocal sent
        theirs.send(ANSWER_BYTES.to_bytes(4, "big"))
        with suppress(OSError):
            while sent < ANSWER_BYTES and not stop.wait(0.02):
                sent += theirs.send(b"\0")

    thread = threading.Thread(target=trickle)
    thread.start()
    with pytest.raises((EOFError, OSError)):
        wire.authenticate(ours, KEY, 0.5)
    stop.set()
    thread.join()
    theirs.close()
    assert sent < ANSWER_BYTES


def test_many_silent_strangers_exhaust_nothing(
    server: ControlServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reception, "HELLO_SECONDS", 100 * LIMIT)
    threads = threading.active_count()
    with ExitStack() as stack:
        for _ in range(reception.MAX_UNAUTHENTICATED + 40):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.connect(str(server.address))
        wait_until(lambda: "others have not authenticated yet" in caplog.text, "the refusal of those beyond")
        # Each has a thread, and the timer that ends it.
        assert threading.active_count() <= threads + 2 * reception.MAX_UNAUTHENTICATED
    joining = Joining(server, "stage 1")
    server.accept({"stage 1"}, LIMIT)
    joining.result().close()


def test_a_stranger_that_stays_silent_is_dropped(server: ControlServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reception, "HELLO_SECONDS", 0.1)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(server.address))
        sock.settimeout(LIMIT)
        while sock.recv(1024):  # the challenge, and then the end
            pass


def test_who_comes_back_before_its_end_was_read_gets_in_once_it_is(server: ControlServer) -> None:
    first = Joining(server, "stage 1")
    server.accept({"stage 1"}, LIMIT)
    assert server.connected() == {"stage 1"}
    first.result().send({"last": "words"})
    first.result().close()
    assert server.connected() == set()
    second = Joining(server, "stage 1")
    await_arrival(server)
    assert server.poll(LIMIT) == [("stage 1", {"last": "words"})]
    assert server.poll(LIMIT) == [("stage 1", None)]
    server.accept({"stage 1"}, LIMIT)
    server.send("stage 1", {"welcome": "back"})
    with second.result() as again:
        assert again.poll(LIMIT) == {"welcome": "back"}
        assert server.connected() == {"stage 1"}


def test_who_waits_to_come_back_and_dies_makes_room_for_the_next(server: ControlServer) -> None:
    first = Joining(server, "stage 1")
    server.accept({"stage 1"}, LIMIT)
    first.result().close()
    assert server.poll(LIMIT) == [("stage 1", None)]
    dead = wire.connect(server.address, KEY, LIMIT)
    dead.send_bytes(b'{"hello": "stage 1"}')
    await_arrival(server)
    server.poll(0)
    dead.close()
    second = Joining(server, "stage 1")
    await_arrival(server)
    server.accept({"stage 1"}, LIMIT)
    assert isinstance(second.result(), ControlClient)
    second.result().close()


def test_why_a_client_was_dropped_is_kept(server: ControlServer) -> None:
    joining = Joining(server, "stage 1")
    server.accept({"stage 1"}, LIMIT)
    joining.result()._connection.send_bytes(b"{")
    assert server.poll(LIMIT) == [("stage 1", None)]
    assert "not JSON" in server.dropped["stage 1"]
    joining.result().close()
