"""Notices that this process itself stood still, so that nobody is blamed for its silence."""

from __future__ import annotations

import time


class SuspensionDetector:
    """Finds gaps between calls that come regularly: a job was suspended, or a laptop closed.

    Args:
        limit: seconds between two calls of `seconds` that are not a suspension yet.
    """

    def __init__(self, limit: float) -> None:
        self._limit, self._last = limit, time.monotonic()

    def seconds(self) -> float:
        """How long this process has stood still since the last call; 0 if it has not."""
        now = time.monotonic()
        gap, self._last = now - self._last, now
        return gap if gap > self._limit else 0.0
