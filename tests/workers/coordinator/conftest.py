"""The time of the coordinator's main thread, which passes as a test tells it."""

from __future__ import annotations

import pytest

from tests.workers.coordinator.monitor_scene import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Of everything that the main thread asks for the time."""
    found = Clock()
    for module in ("monitor", "health", "restarts", "stacks"):
        monkeypatch.setattr(f"workers.coordinator.{module}.time", found)
    return found
