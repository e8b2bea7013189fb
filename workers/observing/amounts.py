"""What each step added to the totals of a run: derived here, once, and written into each line as `added`.

Each process counts from 0. One that replaces another therefore starts again at 0, and repeats steps first:

    step of stage 2        0     1     2      replaced, goes on after the snapshot of step 0:  1     2     3
    busy, as reported     1.0   2.0   3.0                                                     0.9   1.8   2.7
    added                 1.0   1.0   1.0                                                     0.9   0.9   0.9
    line of that step      0     1     2                                                      -     -      3

No line contains what a repeated step added; `report.json` and Prometheus include it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from math import isfinite
from typing import Any

from workers.observing.observer import TIMES

STAGE_TOTALS = (*TIMES, "link_bytes", "skipped", "flops", "alloc_retries")
RUN_TOTALS = ("feed_wait_seconds",)
RUN = 0
"""Stands for the whole run where a stage number is expected."""
DIGITS = 6
"""Decimals of the seconds in `added`: it is written for every stage and step, so it must stay short."""


class Growth:
    """Differences between successive totals, per owner."""

    def __init__(self) -> None:
        self._last: dict[Hashable, Mapping[str, float] | None] = {}

    def forget(self, owner: Hashable) -> None:
        """The process that counts was replaced: its next totals start from 0."""
        self._last[owner] = None

    def of(self, owner: Hashable, totals: Mapping[str, float]) -> tuple[dict[str, float], bool]:
        """What was added since the last call for `owner`, and whether its totals restarted from 0 in between."""
        last = self._last.get(owner, {})
        again = last is None or any(value < last.get(name, 0) for name, value in totals.items())
        before = {} if last is None or again else last
        self._last[owner] = totals
        return {name: value - before.get(name, 0) for name, value in totals.items()}, again


class Sums(dict[str, float]):
    """Sums of amounts by name."""

    def add(self, amounts: Mapping[str, float]) -> None:
        """Add each amount to its sum."""
        for name, value in amounts.items():
            self[name] = self.get(name, 0) + value


class MissingAmounts:
    """Fills in `added` where lines lack it: lines of earlier versions, and samples of a long file.

    Args:
        apart: the lines are samples, so `added` is recomputed to cover the steps since the sample before.
    """

    def __init__(self, apart: bool = False) -> None:
        self._apart, self._growth, self._time = apart, Growth(), None

    _time: float | None

    def fill(self, line: dict[str, Any]) -> dict[str, Any]:
        """The same line, with `added` in it and in each of its stages."""
        added, again = self._growth.of(RUN, finite_of(line, RUN_TOTALS))
        for stage in line["stages"]:
            of_stage, fell = self._growth.of(stage["stage"], finite_of(stage, STAGE_TOTALS))
            again = again or fell
            self._put(stage, of_stage)
        if self._time is not None and line["time"] >= self._time and not again:
            added["seconds"] = line["time"] - self._time
        self._time = line["time"]
        self._put(line, added)
        return line

    def _put(self, values: dict[str, Any], added: dict[str, float]) -> None:
        if self._apart or not isinstance(values.get("added"), dict):
            values["added"] = added


def written(added: Mapping[str, float]) -> dict[str, float]:
    """The form that is written into a line: rounded, without zeros."""
    rounded = {name: round(value, DIGITS) for name, value in added.items()}
    return {name: value for name, value in rounded.items() if value}


def finite(value: object) -> float | None:
    """`value` as a finite float, else None; booleans are not numbers. A file may contain anything."""
    if type(value) is float:  # fast path: a long run has 100 million numbers
        return value if value - value == 0.0 else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if isfinite(value) else None
    except OverflowError:
        return None


def amounts(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, float]:
    """What the step of a line, or of a stage in it, added to the totals `names`, except for totals that it lacks."""
    added = {name: values["added"].get(name, 0) for name in names if finite(values.get(name)) is not None}
    return finite_of(added, added)


def finite_of(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, float]:
    """The named values that are finite numbers."""
    return {name: found for name in names if (found := finite(values.get(name))) is not None}
