"""The control channel: everybody is heard, strangers are dropped, and an end is noticed."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.errors import TrainingError, UserError
from tests.waiting import LIMIT, wait_until
from workers.control import acceptor as reception
from workers.control import channel as control
from workers.control.channel import MAX_MESSAGE_BYTES, ControlClient, ControlClosed, ControlServer, ControlTimeout
from workers.links import wire

KEY = b"the key of the run"


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


def collect(server: ControlServer, count: int) -> list[tuple[str, Any]]:
    news: list[tuple[str, Any]] = []

    def enough() -> bool:
        news.extend(server.poll(0.5))
        return len(news) >= count

    wait_until(enough, lambda: f"more than {news} of {count} messages", pause=0.0)
    return news


def await_arrival(server: ControlServer) -> None:
    """Somebody has said a name and is yet to be let in."""
    wait_until(server._acceptor._accepted.qsize, "somebody")


def test_messages_travel_both_ways(server: ControlServer, clients: tuple[ControlClient, ControlClient]) -> None:
    one, two = clients
    server.broadcast({"do": "start"})
    server.send("stage 2", {"step": 3, "values": [0.5, None, "ä"]})
    assert one.poll(LIMIT) == {"do": "start"}
    assert [two.poll(LIMIT), two.poll(LIMIT)] == [{"do": "start"}, {"step": 3, "values": [0.5, None, "ä"]}]
    assert one.poll(0) is None
    one.send({"n": 1})
    one.send({"n": 2})
    two.send({"n": 3})
    news = collect(server, 3)
    assert sorted(news, key=lambda item: item[1]["n"]) == [
        ("stage 1", {"n": 1}), ("stage 1", {"n": 2}), ("stage 2", {"n": 3})
    ]  # fmt: skip
    assert server.poll(0.05) == []


def test_two_threads_of_one_client_do_not_mix_their_messages(
    server: ControlServer,
    clients: tuple[ControlClient, ControlClient],
    meanwhile: Callable[..., Callable[[], Any]],
) -> None:
    def send_all(thread: int) -> None:
        for number in range(100):
            clients[0].send({"thread": thread, "number": number, "padding": "x" * 20_000})

    done = [meanwhile(send_all, thread) for thread in (0, 1)]
    news = collect(server, 200)
    assert [wait() for wait in done] == [None, None]
    for thread in (0, 1):
        assert [message["number"] for _, message in news if message["thread"] == thread] == list(range(100))


def test_accept_names_those_that_are_missing_and_keeps_the_others(
    server: ControlServer, meanwhile: Callable[..., Callable[[], Any]]
) -> None:
    connecting = meanwhile(ControlClient.connect, server.address, KEY, "stage 1", LIMIT)
    await_arrival(server)
    with pytest.raises(ControlTimeout, match=r"stage 2, stage 3 did not connect .* within 0\.5 s"):
        server.accept({"stage 1", "stage 2", "stage 3"}, 0.5)
    with connecting() as client:
        server.accept({"stage 1"}, 0.1)
        client.send({"still": "here"})
        assert collect(server, 1) == [("stage 1", {"still": "here"})]


def test_the_end_of_a_client_is_reported_once_after_its_last_words(
    server: ControlServer, clients: tuple[ControlClient, ControlClient]
) -> None:
    clients[0].send({"last": "words"})
    clients[0].close()
    server.send("stage 1", {"nobody": "reads this"})
    assert collect(server, 2) == [("stage 1", {"last": "words"}), ("stage 1", None)]
    assert server.poll(0.05) == []
    server.send("stage 1", {})
    clients[1].send({"n": 1})
    assert collect(server, 1) == [("stage 2", {"n": 1})]


def test_a_client_that_ended_may_come_back(
    server: ControlServer,
    clients: tuple[ControlClient, ControlClient],
    meanwhile: Callable[..., Callable[[], Any]],
) -> None:
    clients[0].close()
    assert collect(server, 1) == [("stage 1", None)]
    connecting = meanwhile(ControlClient.connect, server.address, KEY, "stage 1", LIMIT)
    server.accept({"stage 1", "stage 2"}, LIMIT)
    with connecting() as again:
        server.send("stage 1", {"welcome": "back"})
        assert again.poll(LIMIT) == {"welcome": "back"}


def test_a_client_learns_that_the_server_has_gone(
    server: ControlServer,
    clients: tuple[ControlClient, ControlClient],
    meanwhile: Callable[..., Callable[[], Any]],
) -> None:
    polling = meanwhile(clients[0].poll, LIMIT)
    server.broadcast({"last": "words"})
    server.close()
    assert polling() == {"last": "words"}
    with pytest.raises(ControlClosed, match="stage 1: the coordinator has ended"):
        clients[0].poll(LIMIT)
    with pytest.raises(ControlClosed, match="stage 2: the coordinator cannot be reached"):
        wait_until(lambda: clients[1].send({}), "the end")  # over TCP the first may still leave


@pytest.mark.processes
def test_a_killed_client_is_noticed(server: ControlServer, meanwhile: Callable[..., Callable[[], Any]]) -> None:
    code = (
        "import sys, ast, time; from workers.control.channel import ControlClient; "
        f"client = ControlClient.connect(ast.literal_eval(sys.argv[1]), {KEY!r}, 'stage 1', {LIMIT}); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, repr(server.address)])
    try:
        server.accept({"stage 1"}, LIMIT)
        polling = meanwhile(server.poll, LIMIT)
        process.kill()
        assert polling() == [("stage 1", None)]
    finally:
        process.kill()
        process.wait(LIMIT)


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
    monkeypatch.setattr(reception, "HELLO_SECONDS", 100 * LIMIT)  # who waits for them waits too long
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


def test_a_message_that_is_too_long_is_not_sent(
    server: ControlServer, clients: tuple[ControlClient, ControlClient]
) -> None:
    with pytest.raises(TrainingError, match=f"at most {MAX_MESSAGE_BYTES} bytes"):
        clients[0].send({"padding": "x" * MAX_MESSAGE_BYTES})
    clients[0].send({"n": 1})
    assert collect(server, 1) == [("stage 1", {"n": 1})]


def test_a_client_without_a_server_gives_up_after_its_own_time(tmp_path: Path) -> None:
    with pytest.raises(ControlTimeout, match=r"stage 1 cannot connect .* within 0\.3 s"):
        ControlClient.connect(str(tmp_path / "nobody"), KEY, "stage 1", 0.3)


def test_an_address_in_use_and_a_path_too_long_are_explained(tmp_path: Path) -> None:
    with ControlServer(("127.0.0.1", 0), KEY) as first, pytest.raises(UserError, match="cannot listen on 127"):
        ControlServer(first.address, KEY)
    with pytest.raises(UserError, match="at most 100 bytes"):
        ControlServer(str(tmp_path / ("x" * 200)), KEY)


def test_an_ordinary_file_is_never_removed(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(UserError):
        ControlServer(str(path), KEY)
    wire.remove_socket_file(str(path))
    assert path.read_text() == "data"


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


def test_who_has_nobody_to_hear_sleeps_and_who_has_somebody_is_woken(
    tmp_path: Path, meanwhile: Callable[..., Callable[[], Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a client there is nothing to wait for: the server would ask again and again, at full speed."""
    slept: list[float] = []
    with ControlServer(str(tmp_path / "control"), KEY) as server:
        monkeypatch.setattr(control, "time", SimpleNamespace(sleep=slept.append, monotonic=time.monotonic))
        assert server.poll(5.0) == []
        assert slept == [5.0]
        connecting = meanwhile(ControlClient.connect, server.address, KEY, "stage 1", LIMIT)
        server.accept({"stage 1"}, LIMIT)
        with closing(connecting()) as client:
            slept.clear()
            client.send({"n": 1})
            assert server.poll(LIMIT) == [("stage 1", {"n": 1})]
            assert slept == []
