"""What tests of several files look with: the coordinator's server on a free port, and a browser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry, Gauge

from pipeline.config import MetricsConfig
from tests.observing.browser import chromium
from tests.observing.visitors import Server
from workers.observing.live import History, LiveServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture
def serve() -> Iterator[Server]:
    """`serve(history, page=False)` on a free port; closed when the test ends."""
    with ExitStack() as stack:
        yield lambda history=None, **settings: stack.enter_context(_server(history, **settings))


@pytest.fixture(scope="module")
def idle() -> Iterator[LiveServer]:
    """One server, without a run to speak of, for all tests that only ask it."""
    with _server() as server:
        yield server


def _server(history: History | None = None, **settings: Any) -> LiveServer:
    registry = CollectorRegistry()
    Gauge("onward_step", "Last step", registry=registry).set(7)
    return LiveServer(MetricsConfig(**settings), registry, history or History())


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found
