"""One tracker in a thread of its own, so that however slow or broken it is, training does not notice."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.errors import first_line
from workers.observing.observer import Event, RunFacts
from workers.observing.trackers.base import Tracker, flatten

MAX_WAITING = 1000
"""Steps and events that may wait for a tracker; what comes while so many do is left out and counted."""
POLL_SECONDS = 0.1
_log = logging.getLogger(__name__)


class Delivery:
    """Brings what was measured to one tracker.

    Args:
        name: of the tracker, for messages.
        make: makes it; called in its thread, as everything else.
        facts: of the run.
    """

    def __init__(self, name: str, make: Callable[[], Tracker], facts: RunFacts) -> None:
        self.name, self.missed = name, 0
        self._make, self._facts = make, facts
        self._waiting: queue.Queue[Mapping[str, Any] | Event] = queue.Queue(MAX_WAITING)
        self._started, self._ended = threading.Event(), threading.Event()
        self._drain_until: float  # set by `finish`, before the outcome that tells the thread to look at it
        self._outcome: str | None = None
        self.refused: BaseException | None = None
        """Why it did not start."""
        self._failed: str | None = None
        self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self._unsaid: list[str] = []

    def start(self, seconds: float) -> bool:
        """Whether the tracker has started, or has refused to, within so many seconds."""
        self._thread.start()
        return self._started.wait(seconds)

    def give(self, what: Mapping[str, Any] | Event) -> None:
        """A line of `metrics.jsonl`, or an event; never waits."""
        if self._failed is not None or self._outcome is not None:
            return
        try:
            self._waiting.put_nowait(what)
        except queue.Full:
            self.missed += 1
            if self.missed == 1:
                self._unsaid.append(f"tracker '{self.name}' is too slow: steps are left out of it")

    def news(self) -> list[str]:
        """What the user has not been told yet, a sentence each."""
        if self._failed is not None and self._failed:
            self._unsaid, self._failed = [self._failed], ""
        said, self._unsaid = self._unsaid, []
        return said

    def finish(self, outcome: str, seconds: float) -> None:
        """Nothing follows: deliver for at most half of the time what waits, then end the tracker. Does not wait."""
        self._drain_until = time.monotonic() + seconds / 2
        self._outcome = outcome

    def has_ended(self, seconds: float) -> bool:
        """Whether a tracker that was told to finish has ended, within so many seconds."""
        return self._ended.wait(max(seconds, 0.0))

    def await_end(self, seconds: float) -> None:
        """Wait at most so long for a tracker that was told to finish."""
        if not self.has_ended(seconds):
            self._unsaid.append(f"tracker '{self.name}' has not ended in time, and is left behind")
        if self.missed:
            self._unsaid.append(f"tracker '{self.name}' missed {self.missed} steps or events")

    def _work(self) -> None:
        try:
            tracker = self._make()
            tracker.start(self._facts)
        except BaseException as error:
            self.refused = error
            return
        finally:
            self._started.set()
        where = ""
        try:
            while (what := self._next()) is not None:
                if isinstance(what, Event):
                    tracker.event(what)
                else:
                    where = f" at step {what['step']}"
                    tracker.log(what["step"], flatten(what))
            where = " at its end"
            tracker.end(self._outcome or "")
        except BaseException as error:
            _log.exception("tracker '%s' failed", self.name)
            self._failed = f"tracker '{self.name}' failed{where} ({first_line(error)}) and is told nothing more"
        finally:
            self._ended.set()

    def _next(self) -> Mapping[str, Any] | Event | None:
        """What comes next; None when nothing will, or the time for it is over."""
        while True:
            ending = self._outcome is not None
            if ending and time.monotonic() > self._drain_until:
                self.missed += self._waiting.qsize()
                return None
            try:
                return self._waiting.get(timeout=POLL_SECONDS)
            except queue.Empty:
                if ending:  # it was, before the last look
                    return None
