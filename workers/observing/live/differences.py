"""A line of `metrics.jsonl` as plain numbers by name: totals become what this step added.

A stage that came back counts its totals from 0 again; then what it says is what it added, and the time since the last
step says nothing about the pace of the run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any

from workers.observing.live.buckets import Key
from workers.observing.observer import TIMES

RUN = 0
"""Stands for the run as a whole where a stage is asked for."""
STAGE_TOTALS = (*TIMES, "link_bytes", "skipped")
STAGE_LEVELS = (
    "loss", "learning_rate", "queue_depth", "gradient_norm", "update_norm", "memory_bytes", "cuda_bytes",
    "snapshot_seconds",
)  # fmt: skip
STAGE_GROUPS = {"terms": "term:", "online": "online:"}
"""By the name of a group of numbers: what goes before their names."""
RUN_LEVELS = ("images_per_second", "eta_seconds")
MAX_NAMES = 64
"""Of one group of one stage."""
MAX_LENGTH = 80
"""Characters of a name."""


class StepDeltas:
    """Turns one line after the other into numbers."""

    def __init__(self) -> None:
        self._totals: dict[Key, float] = {}
        self._time: float | None = None

    def pause(self) -> None:
        """The next line is of another attempt: totals begin at 0, and the time between the two was not spent on it."""
        self._totals, self._time = {}, None

    def of(self, line: Mapping[str, Any]) -> dict[Key, float]:
        """What this step says and has added, finite numbers only.

        Returns:
            By stage and name. Totals: seconds, bytes or steps of this step. `step_seconds` of the run: since the step
            before.
        """
        values: dict[Key, float] = {}
        _levels(values, RUN, line, RUN_LEVELS)
        if values.get((RUN, "images_per_second")) == 0:
            del values[RUN, "images_per_second"]  # of the first step, whose pace nobody knows
        again = self._added(values, RUN, line, ("feed_wait_seconds",))
        for stage in line.get("stages", ()):
            index = stage["stage"]
            _levels(values, index, stage, STAGE_LEVELS)
            for group, prefix in STAGE_GROUPS.items():
                names = list(stage.get(group) or {})[:MAX_NAMES]
                _levels(values, index, stage.get(group) or {}, names, prefix)
            again = self._added(values, index, stage, STAGE_TOTALS) or again
        now = _number(line.get("time"))
        if now is not None and self._time is not None and now >= self._time and not again:
            values[RUN, "step_seconds"] = now - self._time
        self._time = now
        return values

    def _added(self, values: dict[Key, float], stage: int, source: Mapping[str, Any], names: Iterable[str]) -> bool:
        """Put in what each total has grown by; returns whether one has begun at 0 again."""
        again = False
        for name in names:
            total = _number(source.get(name))
            if total is None:
                continue
            before = self._totals.get((stage, name), 0.0)
            fell = total < before
            values[stage, name] = total if fell else total - before
            self._totals[stage, name] = total
            again = again or fell
        return again


def _levels(
    values: dict[Key, float], stage: int, source: Mapping[str, Any], names: Iterable[str], prefix: str = ""
) -> None:
    for name in names:
        number = _number(source.get(name))
        if number is not None:
            values[stage, prefix + name[:MAX_LENGTH]] = number


def _number(value: object) -> float | None:
    """A finite number, or None; True is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        return None
    return float(value)
