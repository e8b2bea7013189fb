"""Which training process is alive: every one sends a sign of life, and says how long it has been computing."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from workers.control.validation import Count, Index, Seconds
from workers.run.suspension import SuspensionDetector


@dataclass
class _Pulse:
    heard: float
    stage: int | None = None
    step: int | None = None
    computing: float | None = None
    first: bool = False


@dataclass(frozen=True)
class Beat:
    """A sign of life, as it travels.

    Args:
        stage, step: that the process is at.
        computing: seconds since it began to; None while it waits.
        first: this process has not yet done before what it is doing now for that stage.
    """

    stage: Index | None = None
    step: Count | None = None
    computing: Seconds | None = None
    first: bool = False


@dataclass(frozen=True)
class Hung:
    """A process that has stopped, or a step that takes too long.

    Args:
        who: the process.
        stage: the stage it was at; None if it never said.
        step: the step it was at.
        cause: one sentence.
    """

    who: str
    stage: int | None
    step: int | None
    cause: str


class Health:
    """Kept by the coordinator.

    Args:
        limit: seconds without a sign of life, or for one step, after which a process counts as hung.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._pulses: dict[str, _Pulse] = {}
        self._suspension = SuspensionDetector(min(2.0, limit / 2))

    def expect(self, names: Iterable[str]) -> None:
        """These have connected just now."""
        now = time.monotonic()
        self._pulses |= {name: _Pulse(now) for name in names}

    def dismiss(self, name: str) -> None:
        """Nothing more is expected of this one."""
        self._pulses.pop(name, None)

    def heard(self, name: str, beat: Beat | None = None) -> None:
        """Something has come from `name`; `beat` if it was a sign of life."""
        pulse = self._pulses.get(name)
        if pulse is None:
            return
        pulse.heard = time.monotonic()
        if beat is not None:
            pulse.stage, pulse.step, pulse.computing, pulse.first = beat.stage, beat.step, beat.computing, beat.first

    def hung(self) -> Hung | None:
        """The first process that counts as hung; called at least every second."""
        now, stood = time.monotonic(), self._suspension.seconds()
        for pulse in self._pulses.values():
            pulse.heard += stood  # who stood still himself has heard nobody, and nobody is to blame
        for name, pulse in self._pulses.items():
            silent = now - pulse.heard
            if silent > self.limit:
                return Hung(name, pulse.stage, pulse.step, no_sign_of_life(silent))
            # What is done for the first time compiles, allocates and measures: nobody can say how long that takes.
            if not pulse.first and pulse.computing is not None and pulse.computing > self.limit:
                cause = f"it has been computing for {pulse.computing:.0f} s (hang_timeout)"
                return Hung(name, pulse.stage, pulse.step, cause)
        return None


def no_sign_of_life(seconds: float) -> str:
    """What a process that has been silent for so long fails with."""
    return f"no sign of life for {seconds:.0f} s (hang_timeout): its process or its host is stopped or cut off"
