"""The coordinator's server: what it serves, to whom, and where it listens."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from pipeline.config import MetricsConfig
from pipeline.errors import ConfigError
from tests.observing.visitors import Server, ask, port_of, running
from tests.waiting import LIMIT
from workers.observing.live import History, LiveServer


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
def test_nothing_else_is(idle: LiveServer, path: str) -> None:
    assert ask(idle, path)[0].status == 404


@pytest.mark.parametrize("path", ["/", "/metrics", "/history.json", "/events", "/static/app.js"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"])
def test_it_can_only_be_read(idle: LiveServer, path: str, method: str) -> None:
    answer, _ = ask(idle, path, method)
    assert answer.status == 405
    assert answer.headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", ["/", "/metrics", "/history.json", "/events", "/nothing"])
def test_headers_keep_the_page_to_itself(idle: LiveServer, path: str) -> None:
    answer, body = ask(idle, path, "HEAD")
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
def test_another_name_for_this_machine_is_refused_on_loopback(
    idle: LiveServer, path: str, host: str, status: int
) -> None:
    assert ask(idle, path, "HEAD", Host=host)[0].status == status


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
        LiveServer(MetricsConfig(**settings), CollectorRegistry(), History())


def test_a_port_that_is_taken_is_an_error_at_the_start() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            ConfigError, match=rf"^metrics\.port: port {port} of 127\.0\.0\.1 is taken\. .*metrics\.port=0"
        ):
            LiveServer(MetricsConfig(port=port), CollectorRegistry(), History())


def test_ipv6_is_served_where_there_is_one(serve: Server) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        with pytest.raises(ConfigError, match=r"^metrics\.host: '::1'"):
            serve(host="::1")
        return
    server = serve(host="::1")
    assert server.url.startswith("http://[::1]:")
    connection = http.client.HTTPConnection("::1", port_of(server), timeout=LIMIT)
    connection.request("GET", "/metrics")
    assert connection.getresponse().status == 200
    connection.close()
