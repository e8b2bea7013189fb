"""What tests of the control channel wait for."""

from __future__ import annotations

from typing import Any

from tests.waiting import wait_until
from workers.control.channel import ControlServer

KEY = b"the key of the run"


def collect(server: ControlServer, count: int) -> list[tuple[str, Any]]:
    news: list[tuple[str, Any]] = []

    def enough() -> bool:
        news.extend(server.poll(0.5))
        return len(news) >= count

    wait_until(enough, lambda: f"more than {news} of {count} messages", pause=0.0)
    return news


def await_arrival(server: ControlServer) -> None:
    """Somebody has said a name and is yet to be let in."""
    wait_until(server._reception._arrivals.qsize, "somebody")
