"""Who asks the coordinator's server: for an answer, or for news as they come; and a run to ask about."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from pathlib import Path

from tests.observing.test_history import Told, facts, line
from tests.waiting import LIMIT
from workers.observing.live import History, LiveServer

Server = Callable[..., LiveServer]
"""Of the fixture `serve`."""


def ask(server: LiveServer, path: str, method: str = "GET", **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port_of(server), timeout=LIMIT)
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
        self._connection = http.client.HTTPConnection("127.0.0.1", port_of(server), timeout=LIMIT)
        self._connection.request("GET", path)
        self._answer = self._connection.getresponse()
        assert self._answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"

    def next(self) -> dict[str, str]:
        """Empty where the stream has ended; that it has beaten meanwhile is no news."""
        found: dict[str, str] = {}
        while text := self._answer.readline().decode():
            if text == "\n" and found and found["event"] != "beat":
                return found
            name, _, value = text.rstrip("\n").partition(": ")
            found = {**found, name: value} if name else {}
        return found

    def close(self) -> None:
        self._answer.close()
        self._connection.close()


def running(path: Path, steps: int = 1) -> History:
    history = Told()
    history.run_started(facts(path))
    for step in range(steps):
        history.step_done(line(step))
    return history


def cursor(history: History) -> str:
    return str(json.loads(history.whole().text)["id"])
