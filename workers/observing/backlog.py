"""Which stage the run is waiting for, and for how long: the first that has not reported the oldest unfinished batch."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class OldestMissing:
    """The report, or batch, that has been missing longest.

    Args:
        stage: whose report is missing, counted from 1; None where no batch is in the pipeline and the feed is late.
        step: of the report or batch.
        seconds: since when it could have arrived and has not.
        first: whether nothing has ever arrived from there.
    """

    stage: int | None
    step: int
    seconds: float
    first: bool


class Backlog:
    """Follows batches and reports.

    Args:
        start_step, total_steps: the steps of the run.
    """

    def __init__(self, start_step: int, total_steps: int) -> None:
        self._total = total_steps
        self._sent: dict[int, tuple[int, float]] = {}
        self._reported: dict[int, tuple[int, float]] = {}
        self._next, self._idle_since, self._begun = start_step, time.monotonic(), False

    def batch_sent(self, step: int, stages: int) -> None:
        """A batch was sent and will reach `stages` stages; may be called from any thread."""
        self._sent[step] = (stages, time.monotonic())

    def reported(self, stage: int, step: int) -> None:
        """A report has arrived; a restarted stage may report a step a second time."""
        now = time.monotonic()
        self._reported[stage] = (max(step, self._reported.get(stage, (-1, 0.0))[0]), now)

    def step_done(self, step: int) -> None:
        """Every stage that the batch reaches has reported it."""
        del self._sent[step]
        self._next, self._idle_since, self._begun = step + 1, time.monotonic(), True

    def oldest(self) -> OldestMissing | None:
        """What is missing now; None after the last step."""
        now = time.monotonic()
        if not (under_way := list(self._sent)):
            late = OldestMissing(None, self._next, now - self._idle_since, not self._begun)
            return late if self._next < self._total else None
        step = min(under_way)
        stages, before = self._sent[step]
        for stage in range(1, stages + 1):
            reached, when = self._reported.get(stage, (-1, before))
            if reached < step:
                return OldestMissing(stage, step, now - max(before, when), stage not in self._reported)
            before = when if reached == step else before
        return None
