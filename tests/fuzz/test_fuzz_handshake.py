"""A peer that sends anything at any moment of opening a link ends it soon, and with an error that was meant."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import TrainingError
from tests.fuzz.fuzzing import attempt, fuzzed
from tests.waiting import LIMIT as HANG
from tests.waiting import wait_until
from workers.control import acceptor as reception
from workers.control.channel import ControlClient, ControlServer
from workers.links import wire
from workers.links.base import LinkAddress, Receiver, Sender
from workers.links.factory import open_receiver, open_sender
from workers.links.messages import Header, TensorSpec

pytestmark = pytest.mark.slow

KEY = b"the key of the run"
SPEC = TensorSpec((2, 3), torch.float32)
LIMIT = 0.03
"""Seconds for each step of opening a link; the peer may use up every one of them."""
BYTES = st.binary(max_size=40) | st.builds(
    lambda size, data: size.to_bytes(4, "big", signed=True) + data,  # a frame, its length right or wrong
    st.integers(-3, 40) | st.sampled_from([-(2**31), 2**31 - 1, 1 << 20]),
    st.binary(max_size=40) | st.sampled_from([b"#CHALLENGE#" + b"x" * 20, b"#WELCOME#", b"#FAILURE#", b"[" * 40]),
)
STAGES = st.sampled_from(["stranger", "authenticated", "agreed", "open"])


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "FRAME_SECONDS", LIMIT)
    monkeypatch.setattr(reception, "HELLO_SECONDS", LIMIT)


@contextlib.contextmanager
def meanwhile(act: Callable[[], None]) -> Iterator[threading.Thread]:
    """`act` in a thread; that its peer has had enough of it is no error of its own."""

    def run() -> None:
        with contextlib.suppress(OSError, EOFError, AuthenticationError):
            act()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield thread
    finally:
        thread.join(HANG)
        assert not thread.is_alive()


def reached(path: str) -> socket.socket:
    """Connected to whoever listens at `path`, as soon as somebody does."""
    sock = socket.socket(socket.AF_UNIX)
    for _ in range(1000):
        with contextlib.suppress(OSError):
            sock.connect(path)
            return sock
        time.sleep(0.0005)
    raise TimeoutError


def misbehave(connection: Connection, until: str, data: bytes, stays: bool) -> None:
    """Answer as is right up to a stage, then send `data`, and leave or fall silent."""
    if until in ("agreed", "open"):
        connection.send_bytes(connection.recv_bytes())  # their own statement: nobody could agree more
    if until == "open":
        wire.limit_io(connection, LIMIT)
        connection.recv_bytes()
    with wire.as_socket(connection) as sock:
        sock.sendall(data)
    if stays:
        time.sleep(LIMIT)
    connection.close()


def address_in(folder: Path) -> LinkAddress:
    return LinkAddress("link1", "stage 1", "stage 2", path=str(folder / "link1"), key=KEY, depth=2)


def used(end: Any) -> None:
    with end:
        if isinstance(end, Receiver):
            end.recv(LIMIT)
        elif isinstance(end, Sender):
            for step in range(4):
                end.send(Header(step, 0, ()), torch.zeros(2, 3), LIMIT)


@given(until=STAGES, data=BYTES, stays=st.booleans())
@fuzzed
def test_a_receiver(until: str, data: bytes, stays: bool, tmp_path: Path) -> None:
    address = address_in(tmp_path)

    def peer() -> None:
        if until == "stranger":
            connection = Connection(reached(address.path).detach())
        else:
            connection = wire.connect(address.path, KEY, 1.0)
        misbehave(connection, until, data, stays)

    with meanwhile(peer):
        attempt(lambda: used(open_receiver("queue", address, SPEC, LIMIT)), TrainingError)
    assert list(tmp_path.iterdir()) == []


@given(until=STAGES, data=BYTES, stays=st.booleans())
@fuzzed
def test_a_sender(until: str, data: bytes, stays: bool, tmp_path: Path) -> None:
    address = address_in(tmp_path)
    with contextlib.closing(wire.listen(address.path)) as listener:

        def peer() -> None:
            accepted = wire.accept(listener, 1.0)
            connection = Connection(accepted.detach()) if until == "stranger" else wire.authenticate(accepted, KEY, 1.0)
            misbehave(connection, until, data, stays)

        with meanwhile(peer):
            attempt(lambda: used(open_sender("queue", address, SPEC, LIMIT)), TrainingError)
    wire.remove_socket_file(address.path)


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ControlServer, ControlClient]]:
    """A server with one good client, whatever the others do."""
    with ControlServer(str(tmp_path_factory.mktemp("fuzz") / "control"), KEY) as server:
        outcome: list[ControlClient] = []
        joining = threading.Thread(
            target=lambda: outcome.append(ControlClient.connect(server.address, KEY, "stage 1", HANG))
        )
        joining.start()
        server.accept({"stage 1"}, HANG)
        joining.join(HANG)
        yield server, outcome[0]
        outcome[0].close()


@given(until=st.sampled_from(["stranger", "authenticated", "admitted"]), data=BYTES, stays=st.booleans())
@fuzzed
def test_the_coordinator(until: str, data: bytes, stays: bool, control: tuple[ControlServer, ControlClient]) -> None:
    server, good = control
    path = str(server.address)
    welcome = threading.Event()

    def peer() -> None:
        connection = Connection(reached(path).detach()) if until == "stranger" else wire.connect(path, KEY, 1.0)
        if until == "admitted":
            connection.send_bytes(b'{"hello": "stage 2"}')
            wire.limit_io(connection, 5.0)
            connection.recv_bytes()
            welcome.set()
        misbehave(connection, "authenticated", data, stays)

    news: list[tuple[str, Any]] = []
    with meanwhile(peer) as thread:
        while thread.is_alive():
            if until == "admitted":
                attempt(lambda: server.accept({"stage 1", "stage 2"}, 0.01), TrainingError)
            news += attempt(lambda: server.poll(0.001))[0]
    good.send({"still": "here"})
    awaited = [("stage 1", {"still": "here"})] + [("stage 2", None)] * welcome.is_set()

    def all_came() -> bool:
        news.extend(attempt(lambda: server.poll(0.1))[0])
        return all(found in news for found in awaited)

    wait_until(all_came, lambda: f"one of {awaited}, but {news}", pause=0.0)
    assert ("stage 1", None) not in news
