"""The JSON that the server sends: the whole history, or what is new, in small pieces.

Python's encoder holds the GIL while it runs, so one column is encoded at a time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.observing.downsampler import SampledRows

DIGITS = 6
"""Significant digits of a number."""


@dataclass(frozen=True, kw_only=True)
class Document:
    """A copy of the history, or of its end.

    Args:
        id: the cursor of its reader; see `History.since`.
        facts: of the run; None in an update, and before the run has started.
        outcome: how the run ended; None while it runs.
        ended: when, in seconds since 1970; None while it runs.
        now: see `CurrentState.summary`.
        events: in order.
        rows: of the table.
    """

    id: str
    facts: dict[str, Any] | None
    outcome: str | None
    ended: float | None
    now: dict[str, Any]
    events: tuple[dict[str, Any], ...]
    rows: SampledRows

    def pieces(self) -> Iterator[str]:
        """The JSON object in pieces; `columns` are by stage (0: the run) and name, null where nothing was measured.

        `clock` is the time of this machine, which may differ from the browser's.
        """
        head = {
            "id": self.id,
            "facts": self.facts,
            "outcome": self.outcome,
            "ended": self.ended,
            "clock": round(time.time(), 3),
            "now": self.now,
            "events": self.events,
            "stride": self.rows.stride,
            "start": self.rows.start,
            "steps": self.rows.steps.tolist(),
            "times": [round(time, 3) for time in self.rows.times.tolist()],
        }
        yield json.dumps(head, allow_nan=False)[:-1] + ', "columns": {'
        stage = None
        for number, (key, values) in enumerate(sorted(self.rows.columns.items())):
            if key[0] != stage:
                yield f'{"}, " if number else ""}"{key[0]}": {{'
            yield f"{', ' if key[0] == stage else ''}{json.dumps(key[1])}: {_numbers(values)}"
            stage = key[0]
        yield "}}}" if self.rows.columns else "}}"

    @cached_property
    def text(self) -> str:
        """The whole JSON text, encoded once for all pages."""
        return "".join(self.pieces())


def _numbers(values: NDArray[np.float64]) -> str:
    return "[" + ",".join("null" if value != value else f"{value:.{DIGITS}g}" for value in values.tolist()) + "]"
