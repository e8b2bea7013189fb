"""The coordinator's server: what it serves, to whom, and that nobody who looks can hold up the run."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.parser import text_string_to_metric_families

from pipeline.config import Metrics
from pipeline.errors import ConfigError
from tests.observing.test_history import event, facts, line
from workers.observing.live import History, LiveServer
from workers.observing.live import answers as answering
from workers.observing.live import server as serving

WAIT = 10
Server = Callable[..., LiveServer]


@pytest.fixture
def serve() -> Iterator[Server]:
    """`serve(history, page=False)` on a free port; closed when the test ends."""
    with ExitStack() as stack:

        def start(history: History | None = None, **settings: Any) -> LiveServer:
            registry = CollectorRegistry()
            Gauge("onward_step", "Last step", registry=registry).set(7)
            return stack.enter_context(LiveServer(Metrics(**settings), registry, history or History()))

        yield start


def ask(server: LiveServer, path: str, method: str = "GET", **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port_of(server), timeout=WAIT)
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


def port_of(server: LiveServer) -> int:
    return int(server.url.rstrip("/").rpartition(":")[2])


class Stream:
    """What `/events` says, event by event."""

    def __init__(self, server: LiveServer, path: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port_of(server), timeout=WAIT)
        self._connection.request("GET", path)
        self._answer = self._connection.getresponse()
        assert self._answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"

    def next(self) -> dict[str, str]:
        """Empty where the stream has ended."""
        found: dict[str, str] = {}
        while text := self._answer.readline().decode():
            if text == "\n" and found:
                return found
            name, _, value = text.rstrip("\n").partition(": ")
            if name:
                found[name] = value
        return found

    def close(self) -> None:
        self._answer.close()
        self._connection.close()


def running(path: Path, steps: int = 1) -> History:
    history = History()
    history.run_started(facts(path))
    for step in range(steps):
        history.step_done(line(step))
    return history


def cursor(history: History) -> str:
    return str(json.loads(history.whole().text)["id"])


def test_the_page_and_all_that_it_asks_for_is_served(serve: Server) -> None:
    server = serve()
    answer, page = ask(server, "/")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    for path in ("/static/app.js", "/static/app.css", "/static/vendor/uplot-1.6.32/uPlot.iife.min.js", "/favicon.ico"):
        answer, body = ask(server, path)
        assert answer.status == 200, path
        assert len(body) == int(answer.headers["Content-Length"]) > 100
    assert b"http://" not in page
    assert b"https://" not in page
    assert b"<script>" not in page


@pytest.mark.parametrize(
    "path",
    [
        "/static/", "/static/../server.py", "/static/%2e%2e/server.py", "/static/..%2fserver.py",
        "/static/vendor/vendor.sh",
        "//etc/passwd", "/etc/passwd", "/static/app.js/", "/index.html", "/metrics/", "/static/__pycache__",
    ],
)  # fmt: skip
def test_nothing_else_is(serve: Server, path: str) -> None:
    assert ask(serve(), path)[0].status == 404


@pytest.mark.parametrize("path", ["/", "/metrics", "/history.json", "/events", "/static/app.js"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"])
def test_it_can_only_be_read(serve: Server, path: str, method: str) -> None:
    answer, _ = ask(serve(), path, method)
    assert answer.status == 405
    assert answer.headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", ["/", "/metrics", "/history.json", "/events", "/nothing"])
def test_headers_keep_the_page_to_itself(serve: Server, path: str) -> None:
    answer, body = ask(serve(), path, "HEAD")
    assert body == b""
    rules = dict(rule.strip().split(" ", 1) for rule in answer.headers["Content-Security-Policy"].split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
    assert rules["frame-ancestors"] == rules["form-action"] == rules["base-uri"] == "'none'"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize("path", ["/", "/metrics", "/history.json", "/events"])
@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("localhost:9999", 200), ("127.0.0.1:80", 200), ("127.3.2.1", 200), ("[::1]:8000", 200),
        ("evil.example", 403), ("evil.example:80", 403), ("127.0.0.1.evil.example", 403), ("192.0.2.1", 403),
        ("localhost.evil.example", 403), ("", 403), ("[::1", 403), ("user@evil.example", 403),
    ],
)  # fmt: skip
def test_another_name_for_this_machine_is_refused_on_loopback(serve: Server, path: str, host: str, status: int) -> None:
    assert ask(serve(), path, "HEAD", Host=host)[0].status == status


def test_on_other_addresses_any_name_will_do(serve: Server) -> None:
    assert ask(serve(host="0.0.0.0"), "/metrics", Host="trainer.example")[0].status == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_an_address_that_stands_for_all_is_not_what_users_are_sent_to(serve: Server, host: str) -> None:
    try:
        server = serve(host=host)
    except ConfigError:
        assert host == "::", "there may be no IPv6"
        return
    here, port = ("127.0.0.1" if host == "0.0.0.0" else "[::1]"), port_of(server)
    assert server.url == f"http://{here}:{port}/"
    assert f"from other machines http://{socket.gethostname()}:{port}/" in server.invitation
    assert "other machines" not in serve().invitation


def test_prometheus_gets_the_format_that_it_asks_for(serve: Server) -> None:
    server = serve()
    plain, text = ask(server, "/metrics")
    assert plain.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert [family.name for family in text_string_to_metric_families(text.decode())] == ["onward_step"]
    other, text = ask(server, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert other.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert text.endswith(b"# EOF\n")
    packed, text = ask(server, "/metrics", Accept_Encoding="gzip")
    assert packed.headers["Content-Encoding"] == "gzip"
    assert text[:2] == b"\x1f\x8b"
    assert b"onward_step" not in ask(server, "/metrics?name[]=other")[1]


def test_without_a_page_only_the_metrics_are_served(serve: Server) -> None:
    server = serve(page=False)
    assert ask(server, "/metrics")[0].status == 200
    for path in ("/", "/history.json", "/events", "/static/app.js", "/favicon.ico"):
        assert ask(server, path)[0].status == 404
    assert server.invitation == f"metrics at {server.metrics_url}"
    assert serve().invitation.startswith("watch at http://127.0.0.1:")


def test_the_history_is_one_json_object(serve: Server, tmp_path: Path) -> None:
    history = running(tmp_path, 3)
    answer, body = ask(serve(history), "/history.json")
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    value = json.loads(body)
    assert value["steps"] == [0, 1, 2]
    assert value["facts"]["name"] == "digits"
    assert ask(serve(history), "/healthz")[1] == b"ok\n"


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
    with socket.create_connection(("127.0.0.1", port_of(serve(history))), timeout=WAIT) as client:
        client.sendall(f"GET /events?after={cursor(history)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        received = b""
        while b"event: beat\n" not in received:
            part = client.recv(4096)
            assert part, received
            received += part


def test_closing_tells_open_pages_and_is_quick(tmp_path: Path) -> None:
    history = running(tmp_path)
    server = LiveServer(Metrics(), CollectorRegistry(), history)
    stream = Stream(server, f"/events?after={cursor(history)}")
    stream.next()
    history.run_ended("done")
    started = time.monotonic()
    server.close()
    assert time.monotonic() - started < serving.GOODBYE_SECONDS + 1.0
    assert stream.next()["event"] == "update"
    assert stream.next()["event"] == "end"
    stream.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port_of(server)), timeout=WAIT)


def test_a_browser_that_does_not_read_holds_up_nobody(
    serve: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering.Answers, "timeout", 0.5)
    history = running(tmp_path)
    server = serve(history)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        client.connect(("127.0.0.1", port_of(server)))
        client.sendall(f"GET /events?after={cursor(history)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        started, step = time.monotonic(), 1
        until(lambda: server._server.streams.taken == 1)
        while server._server.streams.taken:
            assert time.monotonic() - started < WAIT, "the stream was never given up"
            history.event(event("note", name="x" * 500_000))
            history.step_done(line(step))
            step += 1
            time.sleep(0.02)
    assert ask(server, "/metrics")[0].status == 200


def test_half_a_request_is_given_up(serve: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert answering.Answers.timeout == answering.CLIENT_SECONDS < 30
    monkeypatch.setattr(answering.Answers, "timeout", 0.3)
    server = serve()
    with socket.create_connection(("127.0.0.1", port_of(server)), timeout=WAIT) as client:
        client.sendall(b"GET / HT")
        assert client.recv(100) == b""
    until(lambda: server._server.clients.taken == 0)


def test_who_comes_when_all_places_are_taken_is_turned_away(serve: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "MAX_CLIENTS", 2)
    server = serve()
    held = [socket.create_connection(("127.0.0.1", port_of(server)), timeout=WAIT) for _ in range(2)]
    until(lambda: server._server.clients.taken == 2)
    assert ask(server, "/metrics")[0].status == 503
    for client in held:
        client.close()
    until(lambda: server._server.clients.taken == 0)
    assert ask(server, "/metrics")[0].status == 200


def test_streams_leave_places_for_prometheus(serve: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "MAX_STREAMS", 1)
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
        reader.join(WAIT)
    assert len(seen) == 20
    assert all(steps == list(range(len(steps))) for steps in seen)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"host": "no host"}, r"^metrics\.host: 'no host' cannot be resolved .*127\.0\.0\.1"),
        ({"host": "192.0.2.1"}, r"^metrics\.host: '192\.0\.2\.1' is not an address of this machine .*127\.0\.0\.1"),
        ({"host": "::ffff::1"}, r"^metrics\.host: '::ffff::1' cannot be resolved"),
    ],
)
def test_an_address_that_is_none_of_ours_is_an_error(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LiveServer(Metrics(**settings), CollectorRegistry(), History())


def test_a_port_that_is_taken_is_an_error_at_the_start() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            ConfigError, match=rf"^metrics\.port: port {port} of 127\.0\.0\.1 is taken\. .*metrics\.port=0"
        ):
            LiveServer(Metrics(port=port), CollectorRegistry(), History())


def test_ipv6_is_served_where_there_is_one(serve: Server) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        with pytest.raises(ConfigError, match=r"^metrics\.host: '::1'"):
            serve(host="::1")
        return
    server = serve(host="::1")
    assert server.url.startswith("http://[::1]:")
    connection = http.client.HTTPConnection("::1", port_of(server), timeout=WAIT)
    connection.request("GET", "/metrics")
    assert connection.getresponse().status == 200
    connection.close()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


@pytest.mark.parametrize(
    "sent", [b"<script>alert(1)</script>\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /" + b"x" * 70_000]
)
def test_what_is_no_request_is_not_repeated(serve: Server, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port_of(serve())), timeout=WAIT) as client:
        client.sendall(sent)
        answer = http.client.HTTPResponse(client)
        answer.begin()
        body = answer.read()
    assert answer.status in (400, 414, 505)
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert b"script" not in body
