"""The control channel: everybody is heard, and an end is noticed."""

from __future__ import annotations

import errno
import json
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.errors import TrainingError, UserError
from tests.runs import start_peer
from tests.waiting import LIMIT, wait_until
from tests.workers.control.control_ends import KEY, await_arrival, collect
from workers.control import channel as control
from workers.control.channel import MAX_MESSAGE_BYTES, ControlClient, ControlClosed, ControlServer, ControlTimeout
from workers.links import wire


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
    client = start_peer("tests.workers.control.control_peer")
    try:
        print(json.dumps(server.address), file=client.stdin, flush=True)
        server.accept({"stage 1"}, LIMIT)
        polling = meanwhile(server.poll, LIMIT)
        client.kill()
        assert polling() == [("stage 1", None)]
    finally:
        client.kill()
        client.wait(LIMIT)


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


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this kernel does not offer it")
def test_a_client_on_another_host_notices_when_that_does_not_answer(tmp_path: Path) -> None:
    """Its heartbeats went nowhere for a quarter of an hour; nothing changes for a Unix socket."""
    for address, seconds in ((("127.0.0.1", 0), 7.5), (str(tmp_path / "socket"), None)):
        with ControlServer(address, KEY) as server, ThreadPoolExecutor() as pool:
            joined = pool.submit(ControlClient.connect, server.address, KEY, "stage 1", LIMIT)
            server.accept({"stage 1"}, LIMIT)
            with joined.result(LIMIT) as client:
                client.end_after_silence(7.5)
                with wire.as_socket(client._connection) as sock:
                    if seconds is not None:
                        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == seconds * 1000
                client.send({"still": "works"})
                assert server.poll(LIMIT) == [("stage 1", {"still": "works"})]


def test_a_host_that_does_not_answer_is_told_from_a_coordinator_that_has_ended() -> None:
    cut_off = wire.how_it_ended(TimeoutError(errno.ETIMEDOUT, "Connection timed out"), "the control channel")
    assert cut_off == "cannot be reached (Connection timed out): its host, or this one, is off or cut off"
    for error in (EOFError(), ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")):
        assert wire.how_it_ended(error, "the control channel") == "has ended or closed the control channel"
