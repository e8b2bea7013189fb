"""What a person sees while a run is running: one line that moves, or plain lines in a file."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

WINDOW_SECONDS = 20.0
"""Throughput is that of the last steps within this."""
PLAIN_SECONDS = 5.0
"""At most one plain line in this time."""


class Progress:
    """Step, images/s, loss of each block and accuracy of its online probe, if it has one, time left.

    Args:
        console: where to; a terminal gets one line that moves.
        total_steps, steps_per_epoch: the size of the run.
    """

    def __init__(self, console: Console, total_steps: int, steps_per_epoch: int) -> None:
        self.console = console
        self.total_steps, self.steps_per_epoch = total_steps, steps_per_epoch
        self._live = Live(console=console, refresh_per_second=4, transient=False) if console.is_terminal else None
        self._window: deque[tuple[float, int]] = deque()
        self._images = 0
        self._printed = 0.0

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def step_done(
        self, step: int, images: int, losses: list[float | None], probed: Sequence[float | None] = ()
    ) -> float:
        """Every stage has finished `step`; returns images/s, 0 until there is a second step to measure.

        Args:
            step: counted from 0.
            images: of its batch.
            losses: of the blocks, in order; None for one without.
            probed: accuracies of their online probes, 0 to 1; None where nothing was measured.
        """
        now = time.monotonic()
        self._images += images
        self._window.append((now, self._images))
        while len(self._window) > 2 and now - self._window[0][0] > WINDOW_SECONDS:
            self._window.popleft()
        (start, before) = self._window[0]
        rate = (self._images - before) / (now - start) if now > start else 0.0
        last = step + 1 >= self.total_steps
        if self._live:
            self._live.update(Text(self._line(step, images, rate, losses, probed)))
        elif last or now - self._printed >= PLAIN_SECONDS:
            self._printed = now
            line = self._line(step, images, rate, losses, probed)
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)
        return rate

    def _line(
        self, step: int, images: int, rate: float, losses: list[float | None], probed: Sequence[float | None]
    ) -> str:
        left = (self.total_steps - step - 1) * images
        speed = f"{rate:7.1f} images/s" if rate else "first step done"
        time_left = f"{clock(left / rate)} left" if rate else ""
        accuracies = " ".join("-" if share is None else f"{100 * share:.1f}" for share in probed)
        probes = f"probe {accuracies} %  " if any(share is not None for share in probed) else ""
        return (
            f"step {step + 1:>{len(str(self.total_steps))}}/{self.total_steps}  "
            f"epoch {step // self.steps_per_epoch + 1}/{-(-self.total_steps // self.steps_per_epoch)}  {speed}  "
            f"loss {' '.join('-' if loss is None else f'{loss:.4f}' for loss in losses)}  {probes}{time_left}"
        ).rstrip()


def clock(seconds: float) -> str:
    """`1:05` or `2:03:09`."""
    minutes, secs = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{secs:02}" if hours else f"{minutes}:{secs:02}"
