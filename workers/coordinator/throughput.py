"""How fast a run is, over its last steps, and how long it will still take."""

from __future__ import annotations

import time
from collections import deque

WINDOW_SECONDS = 20.0
"""Throughput is that of the last steps within this."""


class Throughput:
    """Images a second of the last steps.

    Args:
        total_steps: at which the run ends.
    """

    def __init__(self, total_steps: int) -> None:
        self.total_steps = total_steps
        self._images = 0
        self._window: deque[tuple[float, int]] = deque()

    def step_done(self, step: int, images: int) -> tuple[float, float | None]:
        """Every stage has finished `step`, counted from 0, on so many images.

        Returns:
            Images a second, 0 until there is a second step to measure; seconds to the end of the run, None until then.
        """
        now = time.monotonic()
        self._images += images
        self._window.append((now, self._images))
        while len(self._window) > 2 and now - self._window[0][0] > WINDOW_SECONDS:
            self._window.popleft()
        start, before = self._window[0]
        rate = (self._images - before) / (now - start) if now > start else 0.0
        return rate, (self.total_steps - step - 1) * images / rate if rate else None
