"""Finds training processes that hang: a missing heartbeat, or a step that takes too long."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from workers.control.failures import FailureReport
from workers.control.validation import Count, Index, Seconds
from workers.run.suspension import SuspensionDetector
from workers.topology.processes import stage_name

STOPPED = "its process or its host is stopped or cut off"
"""Why a process may give no sign of life."""
HELD = "a call that is not Python holds its interpreter"
"""Why one does that still answers a signal."""


@dataclass
class _LastHeartbeat:
    received: float
    stage: int | None = None
    step: int | None = None
    computing: float | None = None
    first: bool = False


@dataclass(frozen=True)
class Heartbeat:
    """What a training process sends at regular intervals.

    Args:
        stage, step: that the process is working on.
        computing: seconds since it started to compute; None while it waits for a neighbour.
        first: whether it does this kind of step for the first time for that stage.
    """

    stage: Index | None = None
    step: Count | None = None
    computing: Seconds | None = None
    first: bool = False


@dataclass(frozen=True)
class HungProcess:
    """A process that hangs.

    Args:
        who: name of the process.
        stage: that it was working on; None if no heartbeat has named one.
        step: that it was working on.
        cause: one sentence.
    """

    who: str
    stage: int | None
    step: int | None
    cause: str

    def failure(self, step: int) -> FailureReport:
        """As the failure of the run, at a step."""
        return FailureReport(self.who if self.stage is None else stage_name(self.stage), step, "hung", self.cause)


class Health:
    """The last heartbeat of every training process.

    Args:
        limit: seconds without a message, or for one step, after which a process counts as hung.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._last: dict[str, _LastHeartbeat] = {}
        self._suspension = SuspensionDetector(min(2.0, limit / 2))

    def add(self, names: Iterable[str]) -> None:
        """Watch processes that have just connected."""
        now = time.monotonic()
        self._last |= {name: _LastHeartbeat(now) for name in names}

    def remove(self, name: str) -> None:
        """Stop watching a process."""
        self._last.pop(name, None)

    def record(self, name: str, heartbeat: Heartbeat | None = None) -> None:
        """A message from `name` has arrived; `heartbeat` if it was one."""
        last = self._last.get(name)
        if last is None:
            return
        last.received = time.monotonic()
        if heartbeat is not None:
            last.stage, last.step, last.computing, last.first = (
                heartbeat.stage,
                heartbeat.step,
                heartbeat.computing,
                heartbeat.first,
            )

    def silences(self) -> dict[str, float]:
        """Seconds since the last message of every process that is watched."""
        now = time.monotonic()
        return {name: now - last.received for name, last in self._last.items()}

    def find_hung(self) -> HungProcess | None:
        """A process that counts as hung, if there is one; to be called at least every second."""
        now, suspended = time.monotonic(), self._suspension.seconds()
        for last in self._last.values():
            last.received += suspended  # this process received nothing while it was suspended itself
        for name, last in self._last.items():
            silent = now - last.received
            if silent > self.limit:
                return HungProcess(name, last.stage, last.step, no_sign_of_life(silent))
            # A first step compiles, allocates and tunes kernels, which may take arbitrarily long.
            if not last.first and last.computing is not None and last.computing > self.limit:
                cause = f"it has been computing for {last.computing:.0f} s (hang_timeout)"
                return HungProcess(name, last.stage, last.step, cause)
        return None


def no_sign_of_life(seconds: float) -> str:
    """Error message for a process without a heartbeat for so long."""
    return f"no sign of life for {seconds:.0f} s (hang_timeout): {STOPPED}"
