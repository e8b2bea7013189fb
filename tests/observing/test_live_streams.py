"""Pages that stay open hear what happens, and nobody who looks at a run can hold it up."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from pipeline.config import MetricsConfig
from tests.observing.clock import Clock
from tests.observing.test_history import event, line
from tests.observing.visitors import Server, Stream, ask, cursor, port_of, running
from tests.waiting import LIMIT, wait_until
from workers.observing.live import History, LiveServer, page_server
from workers.observing.live import answers as answering
from workers.observing.live import server as serving


def test_news_come_by_themselves_and_end_with_the_outcome(serve: Server, tmp_path: Path) -> None:
    history = running(tmp_path)
    stream = Stream(serve(history), f"/events?after={cursor(history)}")
    first = stream.next()
    assert first["event"] == "update"
    history.step_done(line(1))
    second = stream.next()
    assert json.loads(second["data"])["steps"] == [0, 1]
    assert second["id"] == cursor(history)
    history.event(event("alarm"))
    assert json.loads(stream.next()["data"])["events"][0]["name"] == "starved"
    history.run_ended("failed: stage 2 died")
    assert json.loads(stream.next()["data"])["outcome"] == "failed: stage 2 died"
    assert stream.next() == {"event": "end", "data": '{"outcome": "failed: stage 2 died"}'}
    assert stream.next() == {}
    stream.close()


def test_who_comes_back_gets_what_it_has_missed(serve: Server, tmp_path: Path) -> None:
    history = running(tmp_path)
    server = serve(history)
    stream = Stream(server, f"/events?after={cursor(history)}")
    known = stream.next()["id"]
    stream.close()
    for step in range(1, 4):
        history.step_done(line(step))
    again = Stream(server, f"/events?after={known}")
    assert json.loads(again.next()["data"])["steps"] == [0, 1, 2, 3]
    again.close()
    lost = Stream(server, "/events?after=of-another-run-0")
    assert lost.next()["event"] == "reset"
    assert lost.next() == {}
    lost.close()


def test_a_quiet_stream_beats(serve: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "HEARTBEAT_SECONDS", 0.1)
    history = running(tmp_path)
    with socket.create_connection(("127.0.0.1", port_of(serve(history))), timeout=LIMIT) as client:
        client.sendall(f"GET /events?after={cursor(history)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        received = b""
        while b"event: beat\n" not in received:
            part = client.recv(4096)
            assert part, received
            received += part


def test_closing_tells_open_pages(tmp_path: Path) -> None:
    history = running(tmp_path)
    server = LiveServer(MetricsConfig(), CollectorRegistry(), history)
    stream = Stream(server, f"/events?after={cursor(history)}")
    stream.next()
    history.run_ended("done")
    server.close()
    assert stream.next()["event"] == "update"
    assert stream.next()["event"] == "end"
    stream.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port_of(server)), timeout=LIMIT)


def test_closing_waits_a_moment_and_no_longer_for_a_page_that_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, server = Clock(monkeypatch, serving), LiveServer(MetricsConfig(), CollectorRegistry(), History())
    assert server._server.streams.take()
    end = clock.now + serving.GOODBYE_SECONDS
    server.close()
    assert end <= clock.now <= end + 0.1


def test_a_browser_that_does_not_read_holds_up_nobody(
    serve: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    follow = answering.Answers._follow

    def impatient(answers: answering.Answers, *others: Any) -> None:
        answers.connection.settimeout(0.5)  # of one write, and not of a request that is slow to come
        follow(answers, *others)

    monkeypatch.setattr(answering.Answers, "_follow", impatient)
    history = running(tmp_path)
    server = serve(history)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        client.connect(("127.0.0.1", port_of(server)))
        client.sendall(f"GET /events?after={cursor(history)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        wait_until(lambda: server._server.streams.taken == 1)
        more, steps = event("note", name="x" * 500_000), itertools.count(1)

        def given_up() -> bool:
            history.event(more)
            history.step_done(line(next(steps)))
            return not server._server.streams.taken

        wait_until(given_up, "the end of the stream")
    assert ask(server, "/metrics")[0].status == 200


def test_half_a_request_is_given_up(serve: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert answering.Answers.ask_seconds == answering.ASK_SECONDS < 30
    monkeypatch.setattr(answering.Answers, "ask_seconds", 0.3)
    server = serve()
    with socket.create_connection(("127.0.0.1", port_of(server)), timeout=LIMIT) as client:
        client.sendall(b"GET / HT")
        with contextlib.suppress(ConnectionResetError):  # it had given up before even the half came
            assert client.recv(100) == b""
    wait_until(lambda: server._server.asking.taken == 0)


def test_a_request_that_comes_a_byte_at_a_time_has_an_end_too(serve: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit for every read alone is none for who sends a byte before each of them is over."""
    monkeypatch.setattr(answering.Answers, "ask_seconds", 0.5)
    server = serve()
    with socket.create_connection(("127.0.0.1", port_of(server)), timeout=LIMIT) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: ")
        wait_until(lambda: server._server.asking.taken == 1)

        def cut_off() -> bool:
            with contextlib.suppress(OSError):
                client.sendall(b"a")
            return server._server.asking.taken == 0

        wait_until(cut_off, "the end of a request without an end")


def test_an_answer_that_is_read_a_byte_at_a_time_has_an_end_too(
    serve: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering.Answers, "answer_seconds", 0.5)
    history = running(tmp_path)
    for number in range(20):
        history.event(event("note", name=f"{number}" * 500_000))
    server = serve(history)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        client.settimeout(LIMIT)
        client.connect(("127.0.0.1", port_of(server)))
        client.sendall(b"GET /history.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: server._server.clients.taken == 1)
        wait_until(lambda: not (client.recv(1) and server._server.clients.taken), "the end of an answer")


def test_who_is_slow_to_ask_makes_room_for_who_is_not(serve: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """80 clients that sent a byte a second held all places, and Prometheus got nothing."""
    monkeypatch.setattr(page_server, "MAX_ASKING", 2)
    monkeypatch.setattr(answering.Answers, "ask_seconds", LIMIT)  # nobody gives up a place
    server = serve()
    held = [socket.create_connection(("127.0.0.1", port_of(server)), timeout=LIMIT) for _ in range(5)]
    for path in ("/metrics", "/", "/history.json", "/metrics"):
        assert ask(server, path)[0].status == 200
    assert server._server.asking.taken <= 2
    gone = 0
    for client in held[:3]:
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""
        gone += 1
    assert gone == 3
    for client in held:
        client.close()


def test_who_comes_when_all_places_are_taken_is_turned_away(serve: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_server, "MAX_CLIENTS", 2)
    server = serve()
    for _ in range(2):
        assert server._server.clients.take()
    answer, _ = ask(server, "/history.json")
    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
    server._server.clients.leave()
    assert ask(server, "/history.json")[0].status == 200


def test_metrics_have_places_of_their_own(serve: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_server, "MAX_CLIENTS", 0)
    monkeypatch.setattr(page_server, "MAX_SCRAPES", 1)
    server = serve()
    assert ask(server, "/")[0].status == 503
    assert ask(server, "/metrics")[0].status == 200
    wait_until(server._server.scrapes.take, "the place that the first one gives back after its answer")
    assert ask(server, "/metrics")[0].status == 503


def test_streams_leave_places_for_prometheus(serve: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_server, "MAX_STREAMS", 1)
    history = running(tmp_path)
    server = serve(history)
    stream = Stream(server, f"/events?after={cursor(history)}")
    assert ask(server, "/events")[0].status == 503
    assert ask(server, "/metrics")[0].status == 200
    stream.close()


def test_many_readers_see_one_history_while_it_grows(serve: Server, tmp_path: Path) -> None:
    history = running(tmp_path)
    server = serve(history)
    seen: list[list[int]] = []

    def read() -> None:
        for _ in range(5):
            value = json.loads(ask(server, "/history.json")[1])
            lengths = {len(values) for columns in value["columns"].values() for values in columns.values()}
            assert lengths == {len(value["steps"])}
            seen.append(value["steps"])

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for step in range(1, 300):
        history.step_done(line(step))
    for reader in readers:
        reader.join(LIMIT)
    assert len(seen) == 20
    assert all(steps == list(range(len(steps))) for steps in seen)


@pytest.mark.parametrize(
    "sent", [b"<script>alert(1)</script>\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /" + b"x" * 70_000]
)
def test_what_is_no_request_is_not_repeated(serve: Server, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port_of(serve())), timeout=LIMIT) as client:
        client.sendall(sent)
        answer = http.client.HTTPResponse(client)
        answer.begin()
        body = answer.read()
    assert answer.status in (400, 414, 505)
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert b"script" not in body
