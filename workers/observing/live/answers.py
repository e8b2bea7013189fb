"""The request handler: the page, its data as JSON or as server-sent events, the metrics, or an error."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_address
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

from workers.observing.live.connection_limits import DeadlineReader
from workers.observing.live.document import Document
from workers.observing.live.history import History
from workers.observing.live.page_server import PageServer

ASK_SECONDS = 5.0
"""Time limit for receiving a whole request."""
CLIENT_SECONDS = 10.0
"""Time limit for one write; a browser that does not read is disconnected, and reconnects when it can."""
ANSWER_SECONDS = 60.0
"""Time limit for a whole response, except for the event stream of an open page."""
POLL_SECONDS = 0.25
"""Shortest interval between two updates of a page."""
HEARTBEAT_SECONDS = 5.0
"""A page that receives nothing for three times as long (`connection.js`) reports a lost connection."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Connection": "close",
}
JSON = "application/json; charset=utf-8"
TEXT = "text/plain; charset=utf-8"


class Answers(BaseHTTPRequestHandler):
    """One request; GET and HEAD only."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "onward", ""
    ask_seconds, client_seconds, answer_seconds = ASK_SECONDS, CLIENT_SECONDS, ANSWER_SECONDS
    server: PageServer
    _deadline: float | None = None
    """Deadline of the response; None for an event stream."""

    def setup(self) -> None:
        """Read the request with a deadline."""
        super().setup()
        self.rfile = io.BufferedReader(DeadlineReader(self.connection, time.monotonic() + self.ask_seconds))

    def parse_request(self) -> bool:
        """See the base class; returns whether there is a request to answer."""
        understood = super().parse_request()
        self.connection.settimeout(self.client_seconds)
        self._deadline = time.monotonic() + self.answer_seconds
        return self.server.asking.leave(self.connection) and understood

    def do_GET(self) -> None:
        """Answer with a body."""
        places = self.server.scrapes if urlsplit(self.path).path == "/metrics" else self.server.clients
        if not places.take():
            self.close_connection = True
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too many are being answered\n", {"Retry-After": "5"})
            return
        try:
            self._answer()
        finally:
            places.leave()

    def _answer(self) -> None:
        self.close_connection = True
        if not self._named_rightly():
            self._refuse(HTTPStatus.FORBIDDEN, "this Host is not served; open the address that the run has printed\n")
            return
        path = urlsplit(self.path).path
        if path == "/metrics":
            self._metrics()
        elif self.server.history is None:
            self._refuse(HTTPStatus.NOT_FOUND, "only /metrics is served (metrics.page=false)\n")
        elif file := self.server.files.get(path):
            self._send(HTTPStatus.OK, file.content_type, [file.data], len(file.data))
        elif path == "/history.json":
            self._send(HTTPStatus.OK, JSON, (piece.encode() for piece in self.server.history.whole().pieces()))
        elif path == "/events":
            self._stream(self.server.history)
        elif path == "/healthz":
            self._send(HTTPStatus.OK, TEXT, [b"ok\n"], 3)
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "nothing is here\n")

    do_HEAD = do_GET

    def __getattr__(self, name: str) -> Callable[[], None]:
        """`do_POST` and all other methods: the server is read-only."""
        if name.startswith("do_"):
            return self._not_allowed
        raise AttributeError(name)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer a malformed request; as plain text, because the base class would echo it in a page."""
        self.close_connection = True
        self.request_version = self.protocol_version  # otherwise the base class sends no status line
        self._refuse(HTTPStatus(code), "this is not a request that can be answered\n")

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: a page sends many requests, and the log is about the run."""

    def _not_allowed(self) -> None:
        self.close_connection = True
        self._refuse(HTTPStatus.METHOD_NOT_ALLOWED, "GET and HEAD only\n", {"Allow": "GET, HEAD"})

    def _named_rightly(self) -> bool:
        """Whether `Host` names this machine, where only this machine can ask.

        Protects from DNS rebinding: a foreign page whose host name is made to resolve to this machine.
        """
        hosts = self.headers.get_all("Host") or []
        if not self.server.loopback:
            return True
        if len(hosts) != 1:
            return False
        try:
            name = urlsplit(f"//{hosts[0].strip()}").hostname or ""
            return name == "localhost" or name == self.server.name or ip_address(name).is_loopback
        except ValueError:
            return False

    def _metrics(self) -> None:
        started: list[tuple[str, list[tuple[str, str]]]] = []

        def start(status: str, headers: list[tuple[str, str]], *_: Any) -> Callable[[bytes], object]:
            started.append((status, headers))
            return lambda data: None

        environment = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": "/metrics",
            "QUERY_STRING": urlsplit(self.path).query,
            "HTTP_ACCEPT": self.headers.get("Accept", ""),
            "HTTP_ACCEPT_ENCODING": self.headers.get("Accept-Encoding", ""),
        }
        body = b"".join(self.server.metrics_app(environment, cast(Any, start)))
        ((status, headers),) = started
        others = dict(headers)
        self._send(HTTPStatus(int(status.split()[0])), others.pop("Content-Type"), [body], len(body), others)

    def _stream(self, history: History) -> None:
        """Send events until the page disconnects, the run ends, or the server closes."""
        if not self.server.streams.take():
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too many pages are open\n", {"Retry-After": "5"})
            return
        try:
            self._deadline = None
            self._send(HTTPStatus.OK, "text/event-stream; charset=utf-8", [])
            if self.command == "GET":
                self._follow(history, self._cursor())
        finally:
            self.server.streams.leave()

    def _cursor(self) -> str:
        query = parse_qs(urlsplit(self.path).query)
        return self.headers.get("Last-Event-ID") or query.get("after", [""])[0]

    def _follow(self, history: History, cursor: str) -> None:
        seen, sent = -1, time.monotonic()
        while True:
            closing, version = self.server.closing.is_set(), history.version
            if version != seen:
                news = history.since(cursor)
                if news is None:
                    self._say("reset", "{}")
                    return
                self._say("update", news.text, news)
                cursor, seen, sent = news.id, version, time.monotonic()
                if news.outcome is not None:
                    self._say("end", json.dumps({"outcome": news.outcome}))
                    return
            elif closing:
                return
            elif time.monotonic() - sent > HEARTBEAT_SECONDS:
                self._say("beat", "{}")
                sent = time.monotonic()
            if not closing:
                self.server.closing.wait(POLL_SECONDS)

    def _say(self, event: str, data: str, news: Document | None = None) -> None:
        name = f"id: {news.id}\n" if news else ""
        self._write(f"{name}event: {event}\ndata: {data}\n\n".encode())

    def _refuse(self, status: HTTPStatus, why: str, others: dict[str, str] | None = None) -> None:
        self._send(status, TEXT, [why.encode()], len(why), others)

    def _send(
        self,
        status: HTTPStatus,
        content_type: str,
        body: Iterable[bytes],
        length: int | None = None,
        others: dict[str, str] | None = None,
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        for name, value in {**HEADERS, **(others or {})}.items():
            self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command != "HEAD":
            for piece in body:
                self._write(piece)

    def _write(self, data: bytes) -> None:
        if self._deadline is not None:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("the answer took too long to be read")
            self.connection.settimeout(min(left, self.client_seconds))
        self.wfile.write(data)
        self.wfile.flush()
