"""Writes `events.jsonl`: alarms, restarts, snapshots and notes, one line each, rarely more than one per minute."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.ordinary_files import open_to_write
from workers.observing.observer import Event, RunFacts


class EventLog:
    """An observer that appends events to a file.

    Args:
        path: of `events.jsonl`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def run_started(self, facts: RunFacts) -> None:
        """See `Observer.run_started`."""

    def step_done(self, line: Mapping[str, Any]) -> None:
        """See `Observer.step_done`; steps are written to `metrics.jsonl`."""

    def event(self, event: Event) -> None:
        """See `Observer.event`; raises `OSError` where the disk is full."""
        with open_to_write(self._path, self._path.parent) as file:
            file.write(json.dumps(event.to_json()).encode() + b"\n")

    def run_ended(self, outcome: str) -> None:
        """See `Observer.run_ended`."""
