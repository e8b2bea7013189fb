"""Throughput of a run over its last steps, and the time that is left."""

from __future__ import annotations

import time
from collections import deque

WINDOW_SECONDS = 20.0
"""Window of the throughput."""


class Throughput:
    """Images per second over the last steps.

    Args:
        total_steps: of the run.
    """

    def __init__(self, total_steps: int) -> None:
        self.total_steps = total_steps
        self._images = 0
        self._window: deque[tuple[float, int]] = deque()

    def step_done(self, step: int, images: int) -> tuple[float, float | None]:
        """Every stage has finished `step`, counted from 0, with `images` images.

        Returns:
            Images per second, 0 before the second step; seconds to the end of the run, None before the second step.
        """
        now = time.monotonic()
        self._images += images
        self._window.append((now, self._images))
        while len(self._window) > 2 and now - self._window[0][0] > WINDOW_SECONDS:
            self._window.popleft()
        start, before = self._window[0]
        rate = (self._images - before) / (now - start) if now > start else 0.0
        return rate, (self.total_steps - step - 1) * images / rate if rate else None
