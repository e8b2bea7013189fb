"""How a stage has spent its time lately, from totals that only grow, and begin again when the stage is restarted."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

WINDOW_STEPS = 20


@dataclass(frozen=True)
class Shares:
    """Of the time of one stage, each 0 to 1.

    Args:
        busy: computing.
        starved: waiting for input.
        blocked: waiting for room at the output.
    """

    busy: float
    starved: float
    blocked: float


class StageClock:
    """The last steps of one stage."""

    def __init__(self) -> None:
        self._totals: deque[tuple[float, float, float]] = deque([(0.0, 0.0, 0.0)], WINDOW_STEPS + 1)

    def step_done(self, stage: Mapping[str, Any]) -> None:
        """Take note of a stage's part of a line of `metrics.jsonl`."""
        totals = (float(stage["busy"]), float(stage["wait_input"]), float(stage["wait_output"]))
        if any(now < before for now, before in zip(totals, self._totals[-1], strict=True)):
            self._totals.clear()
            self._totals.append((0.0, 0.0, 0.0))
        self._totals.append(totals)

    def shares(self) -> Shares | None:
        """Over the last `WINDOW_STEPS` steps; None before the first."""
        spent = [now - before for now, before in zip(self._totals[-1], self._totals[0], strict=True)]
        total = sum(spent)
        return Shares(*(seconds / total for seconds in spent)) if total > 0 else None
