"""Finds the one cause among the many signs of a failed run.

When a process dies its neighbours lose their links and the launcher stops the others, so one fault
is reported several times. What raised comes before what died in silence, that before who merely lost
a neighbour, and that before who was told to stop.
"""

from __future__ import annotations

import os
import shlex
import signal
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

from pydantic import Field

from pipeline.errors import OnwardError, StageFailure, TrainingError, UserError
from workers.control.validation import Count, read_message
from workers.run.environment import PREPARED
from workers.run.files import from_here
from workers.run.signals import signal_name

RANKS = ("bad_input", "raised", "died", "hung", "timeout", "lost_neighbour", "given_up", "interrupted")
"""What can be wrong with a process. `given_up`: it has come back as often as it may."""
STOPPING = "stopping after a snapshot (ask again to stop at once)"
"""What the user is told who asked to stop."""


@dataclass(frozen=True)
class FailureReport:
    """One process's word about what went wrong.

    Args:
        who: the process in words.
        step: the step it was working on.
        kind: one of `RANKS`.
        cause: one sentence.
    """

    who: Annotated[str, Field(max_length=200)]
    step: Count | None
    kind: Annotated[str, Field(pattern=f"^({'|'.join(RANKS)})$")]
    cause: str

    def to_message(self) -> dict[str, Any]:
        """For the control channel."""
        return {"type": "failure", "who": self.who, "step": self.step, "kind": self.kind, "cause": self.cause}

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> FailureReport:
        """The inverse of `to_message`; raises `MalformedMessage`."""
        return read_message(cls, message)

    def error(self) -> OnwardError:
        """As an exception; its text is what the user reads."""
        if self.kind == "bad_input":
            return UserError(self.cause)
        if self.kind == "interrupted":
            return TrainingError(self.cause)
        return StageFailure(self.who, self.step, self.cause)


class RunFailed(TrainingError):
    """The run is over; `sign` says why."""

    def __init__(self, sign: FailureReport) -> None:
        super().__init__(str(sign.error()))
        self.sign = sign


def failure_report(who: str, step: int | None, error: BaseException) -> FailureReport:
    """What `who` has to say about an exception that ended it.

    Link errors are known by name: this module must not load torch, the command line reads with it.
    """
    kind = "raised"
    if isinstance(error, UserError):
        kind = "bad_input"
    elif type(error).__name__ == "LinkTimeout":
        kind = "timeout"
    elif type(error).__name__ in ("LinkClosed", "ControlClosed", "ReplicaLost"):
        kind = "lost_neighbour"
    elif isinstance(error, Interrupted):
        kind = "interrupted"
    text = " ".join(str(error).split())
    cause = text if isinstance(error, OnwardError | Interrupted) else f"{type(error).__name__}: {text}"
    if isinstance(error, MemoryError):
        cause = f"memory ran out{f' ({text})' if text else ''}"
    return FailureReport(who, step, kind, cause)


def choose(signs: list[FailureReport]) -> FailureReport:
    """The sign that explains the others; of two alike the earlier."""
    return min(signs, key=lambda sign: RANKS.index(sign.kind) if sign.kind in RANKS else 1)


class Interrupted(BaseException):
    """The process was asked to stop by a signal; not an `Exception`, so that nothing swallows it."""


def raise_interrupted(number: int, frame: FrameType | None) -> None:
    """Signal handler: raises `Interrupted` once; a second signal must not cut off the telling of the first."""
    signal.signal(number, signal.SIG_IGN)
    raise Interrupted(f"asked to stop by {signal_name(number)}")


def interruption(run: Path, committed: int) -> str:
    """What a run that was asked to stop ends with.

    Args:
        run: its directory.
        committed: steps of its newest complete snapshot; 0 for none.
    """
    place = from_here(run)
    if not committed:
        return "interrupted; there is no snapshot yet"
    if PREPARED in os.environ:
        how = f"'onward resume {shlex.quote(str(place))}' goes on"
    else:
        how = f"the same torchrun with {shlex.quote(str(place / 'config.yaml'))} goes on"
    return f"interrupted; {how} from the snapshot after {committed} steps"
