"""Who may not speak on the control channel is refused, and delays and disturbs nobody."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import LIMIT, wait_until
from tests.workers.control.control_ends import KEY, await_arrival, collect
from workers.control import acceptor
from workers.control import channel as control
from workers.control.channel import MAX_MESSAGE_BYTES, ControlClient, ControlClosed, ControlServer, ControlTimeout
from workers.links import wire


def test_a_wrong_key_is_refused_on_both_ends(
    server: ControlServer, meanwhile: Callable[..., Callable[[], Any]], caplog: pytest.LogCaptureFixture
) -> None:
    wrong = meanwhile(ControlClient.connect, server.address, b"wrong", "stage 1", LIMIT)
    right = meanwhile(ControlClient.connect, server.address, KEY, "stage 2", LIMIT)
    server.accept({"stage 2"}, LIMIT)
    with pytest.raises(ControlTimeout, match="stage 1"):
        server.accept({"stage 1", "stage 2"}, 0.5)
    error = wrong()
    assert isinstance(error, ControlClosed)
    assert "refused the key" in str(error)
    wait_until(lambda: "control: refused a connection" in caplog.text, "the warning")
    right().close()


@pytest.mark.parametrize(("name", "reason"), [("stage 1", "already connected"), ("stage 9", "not expected")])
def test_a_name_that_is_taken_or_unknown_is_refused(
    server: ControlServer,
    clients: tuple[ControlClient, ControlClient],
    meanwhile: Callable[..., Callable[[], Any]],
    name: str,
    reason: str,
) -> None:
    other = meanwhile(ControlClient.connect, server.address, KEY, name, LIMIT)
    await_arrival(server)
    with pytest.raises(ControlTimeout):
        server.accept({"stage 1", "stage 2", "stage 3"}, 0.5)
    assert reason in str(other())
    clients[0].send({"n": 1})
    assert collect(server, 1) == [("stage 1", {"n": 1})]


def test_strangers_delay_nobody(
    server: ControlServer, meanwhile: Callable[..., Callable[[], Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor, "HELLO_SECONDS", 100 * LIMIT)  # who waits for them waits too long
    family = socket.AF_UNIX if isinstance(server.address, str) else socket.AF_INET
    with socket.socket(family) as silent, socket.socket(family) as rude:
        silent.connect(server.address)
        rude.connect(server.address)
        rude.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        connecting = meanwhile(ControlClient.connect, server.address, KEY, "stage 1", LIMIT)
        server.accept({"stage 1"}, LIMIT)
    connecting().close()


BAD_BYTES = {
    "not json": b"{",
    "no object": b"[1, 2]",
    "a pickle": b"\x80\x04N.",
    "deeply nested": b"[" * 100_000,
    "oversized": b" " * (MAX_MESSAGE_BYTES + 1),
}


@pytest.mark.parametrize("bad", list(BAD_BYTES))
def test_a_client_that_sends_anything_else_is_dropped_and_the_others_go_on(
    server: ControlServer,
    clients: tuple[ControlClient, ControlClient],
    meanwhile: Callable[..., Callable[[], Any]],
    caplog: pytest.LogCaptureFixture,
    bad: str,
) -> None:
    caplog.set_level(logging.WARNING)
    connection: Connection = clients[0]._connection
    sending = meanwhile(connection.send_bytes, BAD_BYTES[bad])
    assert collect(server, 1) == [("stage 1", None)]
    sending()
    assert "control: dropped stage 1" in caplog.text
    clients[1].send({"n": 1})
    assert collect(server, 1) == [("stage 2", {"n": 1})]


def test_a_client_that_a_busy_coordinator_found_too_slow_comes_again(
    tmp_path: Path, meanwhile: Callable[..., Callable[[], Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its introduction took as long as it may, and the connection was ended just when it was done: it gave up."""
    monkeypatch.setattr(control, "AGAIN_SECONDS", LIMIT)  # this test plays the coordinator, and may be slow itself
    address = str(tmp_path / "control")
    listener = wire.listen(address)
    client = meanwhile(ControlClient.connect, address, KEY, "stage 1", LIMIT)
    with wire.authenticate(wire.accept(listener, LIMIT), KEY, LIMIT) as first:
        assert json.loads(first.recv_bytes()) == {"hello": "stage 1"}
    with wire.authenticate(wire.accept(listener, LIMIT), KEY, LIMIT) as second:
        assert json.loads(second.recv_bytes()) == {"hello": "stage 1"}
        second.send_bytes(b'{"welcome": true}')
        assert isinstance(client(), ControlClient)
    client().close()
    listener.close()


def test_a_client_does_not_wait_for_a_coordinator_that_has_gone(
    tmp_path: Path, meanwhile: Callable[..., Callable[[], Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "AGAIN_SECONDS", 0.1)
    address = str(tmp_path / "control")
    listener = wire.listen(address)
    client = meanwhile(ControlClient.connect, address, KEY, "stage 1", LIMIT)
    with wire.authenticate(wire.accept(listener, LIMIT), KEY, LIMIT) as welcomed:
        welcomed.recv_bytes()
        listener.close()
        wire.remove_socket_file(address)
    error = client()
    assert isinstance(error, ControlClosed)
    assert "has ended or closed the control channel" in str(error)


def test_an_introduction_that_was_ended_just_when_it_was_done_has_failed() -> None:
    ours, _theirs = socket.socketpair()
    connection = Connection(ours.detach())
    with pytest.raises(TimeoutError, match=r"took longer than 0\.01 s"), wire._closed_after(connection, 0.01):
        assert connection.poll(LIMIT), "the end can be read"
    connection.close()
