"""What tests of several files look with: the coordinator's server on a free port, and a browser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry, Gauge

from pipeline.config import Metrics
from tests.observing.browser import chromium
from tests.observing.visitors import Server
from workers.observing.live import History, LiveServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture
def serve() -> Iterator[Server]:
    """`serve(history, page=False)` on a free port; closed when the test ends."""
    with ExitStack() as stack:

        def start(history: History | None = None, **settings: Any) -> LiveServer:
            registry = CollectorRegistry()
            Gauge("onward_step", "Last step", registry=registry).set(7)
            return stack.enter_context(LiveServer(Metrics(**settings), registry, history or History()))

        yield start


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found
