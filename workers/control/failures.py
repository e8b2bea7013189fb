"""Finds the root cause among the failures that the processes of a run report.

When a process dies its neighbours lose their links and the launcher stops the others, so one fault is reported several
times. `KINDS` orders the reports: an exception explains more than a silent death, that more than a lost neighbour, and
that more than being stopped.
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

from pipeline.errors import OnwardError, StageFailure, TrainingError, UserError, is_out_of_memory
from workers.control.validation import Count, read_message
from workers.run.environment import PREPARED, launcher
from workers.run.files import relative_to_cwd
from workers.run.lost_device import device_lost, is_gone
from workers.run.out_of_memory import memory_ran_out
from workers.run.signals import signal_name

KINDS = ("bad_input", "device_gone", "raised", "died", "hung", "timeout", "lost_neighbour", "given_up", "interrupted")
"""Kinds of failure, the most likely root cause first. `device_gone`: no process can compute on its device any more.
`given_up`: the process was restarted as often as allowed."""
STOPPING = "stopping after a snapshot (ask again to stop at once)"
"""Shown to a user who has asked a run to stop."""


@dataclass(frozen=True)
class FailureReport:
    """What went wrong in one process.

    Args:
        who: name of the process.
        step: that it was working on.
        kind: one of `KINDS`.
        cause: one sentence.
    """

    who: Annotated[str, Field(max_length=200)]
    step: Count | None
    kind: Annotated[str, Field(pattern=f"^({'|'.join(KINDS)})$")]
    cause: str

    @property
    def hopeless(self) -> bool:
        """Whether it does not help to start again."""
        return self.kind in ("bad_input", "device_gone")

    def to_message(self) -> dict[str, Any]:
        """As it is sent over the control channel."""
        return {"type": "failure", "who": self.who, "step": self.step, "kind": self.kind, "cause": self.cause}

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> FailureReport:
        """The inverse of `to_message`; raises `MalformedMessage`."""
        return read_message(cls, message)

    def error(self) -> OnwardError:
        """As an exception, whose text is shown to the user."""
        if self.kind == "bad_input":
            return UserError(self.cause)
        if self.kind == "interrupted":
            return TrainingError(self.cause)
        return StageFailure(self.who, self.step, self.cause)


class RunFailed(TrainingError):
    """The run has ended because of `failure`."""

    def __init__(self, failure: FailureReport) -> None:
        super().__init__(str(failure.error()))
        self.failure = failure


def failure_report(who: str, step: int | None, error: BaseException, device: str = "its device") -> FailureReport:
    """The failure of process `who`, which `error` has ended, on `device`.

    Link errors are recognised by their names: the command line imports this module and must not import torch.
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
    if is_out_of_memory(error):
        cause = memory_ran_out(error)
    elif (lost := device_lost(error, device)) is not None:
        kind, cause = "device_gone" if is_gone(error) else kind, lost
    return FailureReport(who, step, kind, cause)


def root_cause(failures: list[FailureReport]) -> FailureReport:
    """The failure that explains the others; the first of several of one kind."""
    return min(failures, key=lambda failure: KINDS.index(failure.kind) if failure.kind in KINDS else 1)


class Interrupted(BaseException):
    """A signal has asked the process to stop; no `Exception`, so that no handler of those catches it."""


def raise_interrupted(number: int, frame: FrameType | None) -> None:
    """Signal handler: raises `Interrupted` once; a second signal must not interrupt the report of the first."""
    signal.signal(number, signal.SIG_IGN)
    raise Interrupted(f"asked to stop by {signal_name(number)}")


def stop_message(run: Path, committed: int) -> str:
    """The message with which a run that was asked to stop ends: how to resume it.

    Args:
        run: its directory.
        committed: steps of its newest complete snapshot; 0 for none.
    """
    place = relative_to_cwd(run)
    if not committed:
        return "interrupted; there is no snapshot yet"
    if PREPARED in os.environ:
        how = f"'onward resume {shlex.quote(str(place))}' goes on"
    else:
        how = f"the same {launcher()} with {shlex.quote(str(place / 'config.yaml'))} goes on"
    return f"interrupted; {how} from the snapshot after {committed} steps"
