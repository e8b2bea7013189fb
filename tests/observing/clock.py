"""A clock that is moved by hand, for what must not depend on how fast a machine is."""

from __future__ import annotations

from typing import Any

import pytest


class Clock:
    """Stands in for `time` in some modules; it stands until a test moves it, or somebody sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *modules: Any) -> None:
        self.now = 1000.0
        for module in modules:
            monkeypatch.setattr(module, "time", self)

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    def monotonic_ns(self) -> int:
        return round(self.now * 1e9)

    def time_ns(self) -> int:
        return round(self.now * 1e9)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
