"""What an observer of a run is told: how it begins, every finished step, what happens in between, how it ends.

A failure of an observer must not take down the training that it observes: the first one is said, and it is told
nothing more. Whoever cannot be set up at all raises where it is made, before the run begins.
"""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from workers.control.validation import Count, Index, read_message

EventKind = Literal["alarm", "cleared", "restart", "snapshot", "note"]
ALARMS = ("collapse", "nonfinite", "starved", "bottleneck", "silent")
"""Names of all alarms that there are."""
TIMES = ("busy", "wait_input", "wait_output")
"""Where the seconds of a stage go; they only grow, as long as the process lives that reports them."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What is known of a run before its first step.

    Args:
        name: of the run, that of its directory.
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
    """Something that happens beside the steps; a line of `events.jsonl`.

    Args:
        time: in seconds since 1970.
        kind: `alarm` and `cleared`: something is wrong, and no longer. `restart`: a stage comes back, or the whole run.
            `snapshot`: one is complete. `note`: anything else that the user is told.
        name: of the alarm; otherwise as `kind`.
        stage: that it is about, counted from 1; None for the whole run.
        step: that it is about, counted from 0, for a snapshot the steps that it is after; None where there is none.
        text: one sentence for a person.
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
    """Is told about one run, from the coordinator's main thread; must not block."""

    def run_started(self, facts: RunFacts) -> None:
        """Before the first step."""
        ...

    def step_done(self, line: Mapping[str, Any]) -> None:
        """Every stage has finished a step; `line` is that of `metrics.jsonl`."""
        ...

    def event(self, event: Event) -> None:
        """Something else has happened."""
        ...

    def run_ended(self, outcome: str) -> None:
        """Nothing follows; `done`, `failed: CAUSE` or `interrupted`."""
        ...


class Observers:
    """Several observers as one that never raises; used on the main thread, but for `post`.

    Args:
        members: told in this order.
        say: prints a sentence about one that failed.
        first: takes every event before the members do, which may ask it then.
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
        """One more, told after the others."""
        self._members.append(member)

    def run_started(self, facts: RunFacts) -> None:
        """See `Observer.run_started`."""
        self._tell("run_started", facts)

    def step_done(self, line: Mapping[str, Any]) -> None:
        """See `Observer.step_done`."""
        self._tell("step_done", line)

    def event(self, event: Event) -> None:
        """See `Observer.event`; an observer may call it while it is told something else."""
        self._first(event)
        self._tell("event", event)

    def run_ended(self, outcome: str) -> None:
        """See `Observer.run_ended`."""
        self._tell("run_ended", outcome)

    def post(self, event: Event) -> None:
        """Keep an event until `deliver`; called from any thread."""
        self._posted.put(event)

    def deliver(self) -> None:
        """Tell the events that other threads have posted."""
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
            with suppress(Exception):  # what failed may be the terminal itself
                self._say(f"{type(member).__name__} failed ({type(error).__name__}: {error}) and is told nothing more")

    def _tell(self, what: str, word: object) -> None:
        for member in list(self._members):
            self.call(member, what, word)
