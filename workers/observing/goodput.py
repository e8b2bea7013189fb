"""Goodput: the share of a run's wall time in which new steps were made, and what the rest of it went to.

`docs/concepts/processes.md` has the definition. All of it is read from files that a run writes anyway, so that an
attempt which was killed loses nothing, and no number falls when another one goes on:

    coordinator.json                 when the attempt began, and what those before it came to
    metrics.jsonl, events.jsonl      when its steps ended, and when it last gave a sign of life

                   began     step 0      1      2    failure    began again      1      2      3      4
    time             |----start----|-new--|-new--|----------restart----------|-repeat-|-new--|-new--|
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any

from pydantic import Field

from workers.control.validation import Count, MalformedMessage, Seconds, read_message
from workers.observing.amounts import finite
from workers.observing.observer import Event, RunFacts
from workers.run.files import RunDir, read_object, write_json

LOST = ("start", "restart", "repeat")
"""What time is lost to."""
Time = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
"""Seconds since 1970."""


@dataclass(frozen=True, kw_only=True)
class Spent:
    """Wall time of a run by what it went to, in seconds.

    Args:
        run: all of it, up to the last step or event.
        new: making steps for the first time.
        start: from the start of a command until its first step had ended.
        restart: from the last step before a failure until the first one after it.
        repeat: making steps again.
        steps: that were made at least once.
    """

    run: Seconds = 0.0
    new: Seconds = 0.0
    start: Seconds = 0.0
    restart: Seconds = 0.0
    repeat: Seconds = 0.0
    steps: Count = 0

    @property
    def ratio(self) -> float | None:
        """The goodput, 0 to 1; None before any time has passed."""
        return min(self.new / self.run, 1.0) if self.run else None

    def plus(self, seconds: float, cause: str) -> Spent:
        """The same, and `seconds` of one cause, at least 0."""
        return replace(self, **{cause: getattr(self, cause) + max(seconds, 0.0)})

    def to_json(self) -> dict[str, Any]:
        """For `report.json` and the page."""
        lost = {cause: getattr(self, cause) for cause in LOST}
        return {"ratio": self.ratio, "seconds": self.new, "run_seconds": self.run, "lost": lost}


@dataclass(frozen=True)
class AttemptStart:
    """What is written of an attempt as it begins.

    Args:
        began: when; None: an earlier version has begun it, so its time counts from its first step on.
        restarted: by what had started it before, after a failure; otherwise a command was given.
        before: all attempts before it.
    """

    began: Time | None = None
    restarted: bool = False
    before: Spent = field(default_factory=Spent)

    def to_json(self) -> dict[str, Any]:
        """For `coordinator.json`."""
        return {"began": self.began, "restarted": self.restarted, "before": asdict(self.before)}


class Goodput:
    """Adds up one attempt, as it goes on or from its files; an observer.

    Args:
        start: of the attempt.
        total_steps: at which the run ends, where that is known already.
    """

    def __init__(self, start: AttemptStart, total_steps: int | None = None) -> None:
        self.start = start
        self.spent = start.before
        """Up to the last step or event. Replaced and never modified, because other threads read it."""
        self._began = self._alive = self._step_ended = start.began
        self._stepless = "restart" if start.restarted else "start"
        """What time goes to in which no step is made."""
        self._total, self._over = total_steps, False

    @classmethod
    def of(cls, run: RunDir, began: float | None = None) -> Goodput:
        """Of the last attempt of a run, before any of its lines; it has begun at `began` if no file says when."""
        try:
            state = read_object(run.coordinator) or {}
        except OSError:
            state = {}
        attempt, total = state.get("attempt"), state.get("total_steps")
        try:
            start = read_message(AttemptStart, attempt) if isinstance(attempt, dict) else AttemptStart(began)
        except MalformedMessage:
            start = AttemptStart(began)
        return cls(start, total if type(total) is int else None)

    def written(self, line: Mapping[str, Any]) -> None:
        """Add a line of `metrics.jsonl`, as it was written; lines of earlier attempts change nothing."""
        ended, added = float(line["time"]), line.get("added")
        if self._began is None or self._step_ended is None:
            self._began = self._alive = self._step_ended = ended
        if ended < self._began:
            return
        length = max(ended - self._step_ended, 0.0)
        known = added if isinstance(added, dict) else {"seconds": length}  # an earlier version says nothing
        repeated = self._repeated(line, length, known)
        cause = "new" if "seconds" in known else self._stepless
        spent = self.spent.plus(repeated, "repeat").plus(length - repeated, cause)
        self.spent = replace(spent, steps=max(spent.steps, line["step"] + 1))
        self._step_ended, self._stepless = max(ended, self._step_ended), "restart"
        self.alive(ended)
        self._over = self._total is not None and line["step"] + 1 >= self._total

    def _repeated(self, line: Mapping[str, Any], length: float, added: Mapping[str, Any]) -> float:
        """Seconds of a line in which steps were made again."""
        if "seconds" not in added:
            return min(max(finite(added.get("repeat_seconds")) or 0.0, 0.0), length)
        steps = max(finite(line.get("steps")) or 1.0, 1.0)
        new: float = min(max(line["step"] + 1 - self.spent.steps, 0.0), steps)
        return length * (1.0 - new / steps)

    def alive(self, when: float) -> None:
        """The run was there at `when`, in seconds since 1970; what comes after its last step is not counted."""
        if self._began is not None and self._alive is not None and not self._over:
            self._alive = max(self._alive, when)
            self.spent = replace(self.spent, run=self.start.before.run + (self._alive - self._began))

    def next_start(self, began: float, restarted: bool) -> AttemptStart:
        """Of the attempt that begins at `began` because this one has ended; see `AttemptStart`."""
        if restarted:  # nobody stopped it in between
            self.alive(began)
        tail = 0.0
        if self._alive is not None and self._step_ended is not None:
            tail = self._alive - self._step_ended
        return AttemptStart(began, restarted, self.spent.plus(tail, self._stepless))

    def run_started(self, facts: RunFacts) -> None:
        """See `Observer.run_started`."""
        self._total = facts.total_steps

    def step_done(self, line: Mapping[str, Any]) -> None:
        """See `Observer.step_done`; a line counts once it is written."""

    def event(self, event: Event) -> None:
        """See `Observer.event`."""
        self.alive(event.time)

    def run_ended(self, outcome: str) -> None:
        """See `Observer.run_ended`."""


def write_start(run: RunDir, start: AttemptStart) -> None:
    """Write what `Goodput.of` reads; raises `OSError`."""
    write_json(run.coordinator, {"attempt": start.to_json()})
