"""The observer interface: the start of a run, every finished step, events in between, and the end.

A failing observer must not end the training: its first error is reported, and it receives nothing more. An observer
that cannot be set up raises in its constructor, before the run begins.
"""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from workers.control.shares import Share
from workers.control.validation import Count, Index, read_message

EventKind = Literal["alarm", "cleared", "restart", "snapshot", "note"]
ALARMS = ("collapse", "nonfinite", "starved", "bottleneck", "silent", "throttled", "mismatch")
"""Names of all alarms."""
TIMES: tuple[Share, ...] = get_args(Share)
"""How a stage spends its time, in seconds: totals of the process that reports them."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """The facts of a run that are fixed before its first step.

    Args:
        name: of the run: the name of its directory.
        path: of the run directory.
        config: the resolved configuration, as in `config.yaml`, without what may be a secret (see
            `pipeline.config.secrets`).
        stages: how many there are.
        total_steps: at which the run ends.
        steps_per_epoch: of the training set.
        start_step: the first step of this attempt; more than 0 goes on from a snapshot.
        started: when it began, in seconds since 1970 (`time.time`).
    """

    name: str
    path: Path
    config: dict[str, Any]
    stages: int
    total_steps: int
    steps_per_epoch: int
    start_step: int
    started: float


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happens apart from the steps; one line of `events.jsonl`.

    Args:
        time: in seconds since 1970.
        kind: `alarm` and `cleared`: a problem begins, and ends. `restart`: a stage, or the whole run, is restarted.
            `snapshot`: one is complete. `note`: any other message to the user.
        name: of the alarm; otherwise as `kind`.
        stage: counted from 1; None for the whole run.
        step: counted from 0; for a snapshot, the number of steps before it; None where there is none.
        text: one sentence for the user.
    """

    time: float
    kind: EventKind
    name: str
    stage: Index | None
    step: Count | None
    text: str

    def to_json(self) -> dict[str, Any]:
        """As a plain dictionary."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Event:
        """The inverse of `to_json`; raises `MalformedMessage`."""
        return read_message(cls, values)


class Observer(Protocol):
    """Follows one run. Called from the coordinator's main thread; must not block."""

    def run_started(self, facts: RunFacts) -> None:
        """Before the first step."""
        ...

    def step_done(self, line: Mapping[str, Any]) -> None:
        """Every stage has finished a step; `line` is the line of `metrics.jsonl`."""
        ...

    def event(self, event: Event) -> None:
        """An event has happened."""
        ...

    def run_ended(self, outcome: str) -> None:
        """The last call; `outcome` is `done`, `failed: CAUSE` or `interrupted`."""
        ...


class Observers:
    """Calls several observers and never raises; used on the main thread, except for `post`.

    Args:
        members: called in this order.
        say: prints a sentence about an observer that failed.
        first: is called with every event before the members are (`ActiveAlarms.event`).
    """

    def __init__(
        self,
        members: Sequence[Observer],
        say: Callable[[str], None],
        first: Callable[[Event], None] = lambda event: None,
    ) -> None:
        self._members, self._say, self._first = list(members), say, first
        self._posted: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def add(self, member: Observer) -> None:
        """Add an observer, called after the others."""
        self._members.append(member)

    def run_started(self, facts: RunFacts) -> None:
        """See `Observer.run_started`."""
        self._call_all("run_started", facts)

    def step_done(self, line: Mapping[str, Any]) -> None:
        """See `Observer.step_done`."""
        self._call_all("step_done", line)

    def event(self, event: Event) -> None:
        """See `Observer.event`; an observer may call it from within another call."""
        self._first(event)
        self._call_all("event", event)

    def run_ended(self, outcome: str) -> None:
        """See `Observer.run_ended`."""
        self._call_all("run_ended", outcome)

    def post(self, event: Event) -> None:
        """Queue an event until `deliver`; may be called from any thread."""
        self._posted.put(event)

    def deliver(self) -> None:
        """Pass on the events that other threads have posted."""
        while not self._posted.empty():
            self.event(self._posted.get_nowait())

    def call(self, member: Observer, what: str, word: object) -> None:
        """Call the method `what` of a member, unless it has failed before."""
        if member not in self._members:
            return
        try:
            getattr(member, what)(word)
        except Exception as error:
            self._members.remove(member)
            _log.exception("%s failed in %s", type(member).__name__, what)
            with suppress(Exception):  # the terminal itself may be what failed
                self._say(f"{type(member).__name__} failed ({type(error).__name__}: {error}) and is not called again")

    def _call_all(self, what: str, word: object) -> None:
        for member in list(self._members):
            self.call(member, what, word)
