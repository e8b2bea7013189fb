"""The observer that prints: redrawn lines on a terminal, plain lines in a file."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from workers.observing.active_alarms import ActiveAlarms
from workers.observing.observer import Event, RunFacts
from workers.observing.terminal.board import Board
from workers.observing.terminal.console import Console
from workers.observing.terminal.drawing import MovingLines
from workers.observing.terminal.step_format import plain_line
from workers.observing.terminal.verbosity import in_notebook

PLAIN_SECONDS = 5.0
"""Shortest interval between two plain lines."""
NOTEBOOK_SHARE, NOTEBOOK_SECONDS = 0.05, 300.0
"""In a notebook, which keeps every line: shortest interval as a share of the time so far, up to so many seconds."""
MAX_EVENTS = 1000
"""Maximum number of events for the summary; `events.jsonl` has all."""
_log = logging.getLogger(__name__)
STYLES = {"alarm": "bold red", "restart": "yellow", "cleared": "green"}


class Progress:
    """Prints the progress of a run; an observer, and a context manager that restores the terminal.

    Args:
        terminal: the console.
        active: which alarms are on.
    """

    def __init__(self, terminal: Console, active: ActiveAlarms) -> None:
        self.terminal, self._active = terminal, active
        self.events: list[Event] = []
        """Events of this attempt, oldest first."""
        self._facts: RunFacts | None = None
        self._board: Board | None = None
        self._live: MovingLines | None = None
        self._printed = self._started = self._last = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def run_started(self, facts: RunFacts) -> None:
        """See `Observer.run_started`."""
        self._facts = facts
        self._started = self._last = time.monotonic()
        if self.terminal.out.is_interactive and not self.terminal.quiet:
            self._board = Board(facts, self._active)

    def step_done(self, line: Mapping[str, Any]) -> None:
        """See `Observer.step_done`."""
        self._last = time.monotonic()
        if self._facts is None or self.terminal.quiet:
            return
        if self._board is not None:
            self._board.step_done(line)
            if self._live is None:  # not earlier: the first steps may take long, and others print meanwhile
                self._live = MovingLines(self._board, self.terminal.out)
                self._live.start(refresh=True)
            return
        now, last = self._last, line["step"] + 1 >= self._facts.total_steps
        if last or self.terminal.verbose or now - self._printed >= self._interval(now):
            self._printed = now
            self.terminal.say(plain_line(line, self._facts.total_steps, self._facts.steps_per_epoch))

    def _interval(self, now: float) -> float:
        """Seconds between two plain lines."""
        if not in_notebook():
            return PLAIN_SECONDS
        return max(PLAIN_SECONDS, min(NOTEBOOK_SHARE * (now - self._started), NOTEBOOK_SECONDS))

    def event(self, event: Event) -> None:
        """See `Observer.event`."""
        if len(self.events) < MAX_EVENTS:
            self.events.append(event)
        if event.kind == "snapshot" or (event.kind == "restart" and event.stage is None):
            self.terminal.detail(event.text)  # the command line has already printed that a run goes on
        else:
            prefix = f"{event.kind}: " if event.kind in ("alarm", "cleared") else ""
            self.terminal.warn(prefix + event.text, STYLES.get(event.kind))

    def run_ended(self, outcome: str) -> None:
        """See `Observer.run_ended`."""
        self.stop()

    @property
    def seconds(self) -> float:
        """Seconds from the start of this attempt to its last finished step."""
        return self._last - self._started

    def stop(self) -> None:
        """Stop redrawing and leave the lines in place; an error while drawing does not end the run."""
        if self._live is None:
            return
        try:
            self._live.stop()
        except Exception:
            _log.exception("how the run stands cannot be drawn")
