"""The data of the live page: a bounded history of every number, the current state, and the events.

The coordinator's main thread adds to it; the threads of the server read copies and encode them without the lock.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from workers.observing.active_alarms import ActiveAlarms
from workers.observing.downsampler import MAX_ROWS, Downsampler
from workers.observing.goodput import Goodput
from workers.observing.headroom_watch import HeadroomWatch
from workers.observing.history_file import last_events, sampled_steps
from workers.observing.line_numbers import numbers_of
from workers.observing.live.current_state import CurrentState
from workers.observing.live.document import Document
from workers.observing.observer import Event, RunFacts
from workers.run.files import RunDir

MAX_EVENTS = 500
"""Maximum number of events; all are in `events.jsonl`."""


class History:
    """An observer that keeps what a page needs to show the whole run.

    Args:
        active: which alarms are on.
        goodput: of the run; None where nobody adds it up.
        headroom: of the run; None where nobody computes it.
        max_rows: maximum number of points per curve.
        max_events: maximum number of events.
    """

    def __init__(
        self,
        active: ActiveAlarms,
        goodput: Goodput | None = None,
        headroom: HeadroomWatch | None = None,
        max_rows: int = MAX_ROWS,
        max_events: int = MAX_EVENTS,
    ) -> None:
        self._goodput, self._headroom = goodput, headroom
        self._lock = threading.Lock()
        self._name = secrets.token_hex(4)
        """Distinguishes this history from that of another process at the same address."""
        self._table, self._now = Downsampler(max_rows), CurrentState(active)
        self._events: deque[Event] = deque(maxlen=max_events)
        self._happened = 0
        self._version = 0
        self._summed, self._sum = -1, dict[str, Any]()
        self._news: tuple[tuple[int, int, int], Document] | None = None
        self._facts: dict[str, Any] | None = None
        self._outcome: str | None = None
        self._ended: float | None = None

    def run_started(self, facts: RunFacts) -> None:
        """See `Observer.run_started`; reads what earlier attempts have left in the run directory."""
        run = RunDir(facts.path)
        lines, events = sampled_steps(run.metrics, facts.start_step), last_events(run.events, self._events.maxlen or 1)
        with self._lock:
            self._facts = {
                "name": facts.name,
                "path": str(facts.path),
                "config": json.loads(json.dumps(facts.config, default=str), parse_constant=str),
                "stages": facts.stages,
                "total_steps": facts.total_steps,
                "steps_per_epoch": facts.steps_per_epoch,
                "start_step": facts.start_step,
                "started": facts.started,
            }
            for line in lines:
                self._take(line)
            for event in events:
                self._happen(event)
            self._now.pause()
            self._version += 1

    def step_done(self, line: Mapping[str, Any]) -> None:
        """Add a line of `metrics.jsonl`."""
        with self._lock:
            self._take(line)
            self._version += 1

    def event(self, event: Event) -> None:
        """Add an event."""
        with self._lock:
            self._happen(event)
            self._version += 1

    def run_ended(self, outcome: str) -> None:
        """See `Observer.run_ended`."""
        with self._lock:
            self._outcome, self._ended = outcome, time.time()
            self._now.end()
            self._version += 1

    @property
    def version(self) -> int:
        """Increases with every change."""
        return self._version

    @property
    def outcome(self) -> str | None:
        """How the run ended; None while it runs."""
        return self._outcome

    def whole(self) -> Document:
        """The whole history."""
        with self._lock:
            return self._document(0, 0, self._facts)

    def since(self, cursor: str) -> Document | None:
        """What is new since the document whose `id` is `cursor`; None if it is unknown and the reader needs everything.

        The last row of the reader is sent again, because its bucket may have grown.
        """
        with self._lock:
            pattern = rf"{self._name}-{self._table.stride}-([0-9]{{1,15}})-([0-9]{{1,15}})"
            found = re.fullmatch(pattern, cursor)
            if found is None or self._facts is None:
                return None
            rows, happened = int(found[1]), int(found[2])
            forgotten = self._happened - len(self._events)
            if rows > self._table.count or not forgotten <= happened <= self._happened:
                return None
            return self._made_once(max(rows - 1, 0), happened)

    def _made_once(self, start: int, happened: int) -> Document:
        """One document, and one text, for all pages with the same cursor."""
        wanted = (self._version, start, happened)
        if self._news is None or self._news[0] != wanted:
            self._news = wanted, self._document(start, happened, None)
        return self._news[1]

    def _document(self, start: int, happened: int, facts: dict[str, Any] | None) -> Document:
        forgotten = self._happened - len(self._events)
        events = list(self._events)[max(happened - forgotten, 0) :]
        return Document(
            id=f"{self._name}-{self._table.stride}-{self._table.count}-{self._happened}",
            facts=facts,
            outcome=self._outcome,
            ended=self._ended,
            now=self._summary(),
            events=tuple(event.to_json() for event in events),
            rows=self._table.rows(start),
        )

    def _summary(self) -> dict[str, Any]:
        """Computed once per version."""
        if self._summed != self._version:
            goodput = None if self._goodput is None else self._goodput.spent.to_json()
            latest = None if self._headroom is None else self._headroom.latest
            headroom = None if latest is None else {"measured": latest.measured, **latest.to_json()}
            self._summed, self._sum = self._version, {**self._now.summary(), "goodput": goodput, "headroom": headroom}
        return self._sum

    def _take(self, line: Mapping[str, Any]) -> None:
        values = numbers_of(line)
        self._table.add(line["step"], line["time"], values)
        self._now.step_done(line, values)

    def _happen(self, event: Event) -> None:
        self._events.append(event)
        self._happened += 1
        self._now.event(event)
