"""How a stage spent the time of its last steps."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from workers.observing.observer import TIMES

WINDOW_STEPS = 20


@dataclass(frozen=True)
class Shares:
    """Shares of a stage's time, each 0 to 1.

    Args:
        busy: computing.
        starved: waiting for input.
        blocked: waiting for room at the output.
        copying: to and from the links, and between host and GPU.
    """

    busy: float
    starved: float
    blocked: float
    copying: float = 0.0


class StageClock:
    """The last steps of one stage."""

    def __init__(self) -> None:
        self._steps: deque[Mapping[str, float]] = deque(maxlen=WINDOW_STEPS)

    def step_done(self, added: Mapping[str, float]) -> None:
        """Add a step, given what it added to the totals of the stage."""
        self._steps.append(added)

    def shares(self) -> Shares | None:
        """Over the last `WINDOW_STEPS` steps; None before the first."""
        spent = [sum(step.get(name, 0.0) for step in self._steps) for name in TIMES]
        whole = sum(spent)
        return Shares(*(seconds / whole for seconds in spent)) if whole > 0 else None
