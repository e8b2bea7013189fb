"""Why the slowest process of a run does not compute all the time: what it waits for, and what that waits for in turn.

stage           1       2       3
waits for input 0.30    0.35    0.40     stage 3 waits for stage 2, that for stage 1, and stage 1 for images
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.config import Config
from workers.topology.processes import stage_name

Cause = Literal["feed", "link", "stage", "restart", "fill", "snapshots"]
"""What time is lost to: images, copying, another stage, processes that were replaced, the start until all stages
have work, and (where one process trains all stages) snapshots and reports."""
LINK = "see link.kind and link.codec"
LEAST_PART = 0.25
"""Of the time without computing: what is less explains little, as a window is not quite that of the rate."""


@dataclass(frozen=True, kw_only=True)
class ProcessTime:
    """What one process has spent, in seconds.

    Args:
        stages: that it trains.
        busy, wait_input, wait_output, copying: as step reports have them, of all its stages together.
    """

    stages: tuple[int, ...]
    busy: float
    wait_input: float
    wait_output: float
    copying: float

    @property
    def whole(self) -> float:
        """All of it."""
        return self.busy + self.wait_input + self.wait_output + self.copying

    def does(self, one: str, several: str) -> str:
        """Its name and a verb."""
        return f"{named(self.stages)} {one if len(self.stages) == 1 else several}"


@dataclass(frozen=True)
class Reason:
    """Why, and a sentence about it."""

    cause: Cause
    sentence: str


def named(stages: tuple[int, ...]) -> str:
    """As messages have a process."""
    return stage_name(stages[0]) if len(stages) == 1 else f"stages {stages[0]}-{stages[-1]}"


def reason_of(
    config: Config, processes: Sequence[ProcessTime], slowest: int, seconds: float, lost: float, ended: bool
) -> Reason | None:
    """The largest part of the time in which the slowest process does not compute; None if no part is large.

    Args:
        config: of the run.
        processes: in order.
        slowest: which of them.
        seconds: that all this took.
        lost: of these, until processes that were replaced had caught up; others have waited meanwhile.
        ended: this is the whole run, and not a window, which does not begin and end with a step of every process.
    """
    it = processes[slowest]
    idle, rest = seconds - it.busy, seconds - it.whole
    largest = max(it.wait_input, it.wait_output, it.copying, rest)
    if largest <= 0 or largest < LEAST_PART * idle:
        return None
    if lost > idle / 2:
        return Reason(
            "restart", f"{_percent(lost, seconds)} of the time went by until replaced processes had caught up"
        )
    if largest == it.wait_input:
        return _input(config, processes, slowest, seconds)
    if largest == it.wait_output:
        return _output(processes, slowest, seconds)
    if largest == it.copying:
        remedy = "" if config.in_one_process else f": {LINK}"
        who = "the run copies" if config.in_one_process else it.does("copies", "copy")
        return Reason("link", f"{who} {_percent(it.copying, seconds)} of the time{remedy}")
    if config.in_one_process:
        return Reason("snapshots", f"snapshots and reports take {_percent(rest, seconds)} of the time")
    if not ended:
        return None
    return Reason("fill", f"{_percent(rest, seconds)} of the time went by until all stages had work: a short run")


def _input(config: Config, processes: Sequence[ProcessTime], slowest: int, seconds: float) -> Reason:
    """It waits for its input: for a stage before it that does something else, or for images."""
    it = processes[slowest]
    place = slowest - 1
    while place >= 0 and processes[place].wait_input >= it.wait_input / 2:
        place -= 1
    share = _percent(it.wait_input, seconds)
    waits = "the run waits" if config.in_one_process else it.does("waits", "wait")
    if place < 0:
        remedy = f"raise data.workers (it is {config.data.workers})"
        return Reason("feed", f"{waits} for images {share} of the time: {remedy}")
    return _other(f"{waits} {share} of the time for", processes[place], seconds)


def _output(processes: Sequence[ProcessTime], slowest: int, seconds: float) -> Reason:
    """It waits for room: for a stage after it that does something else than to wait likewise."""
    it = processes[slowest]
    place = slowest + 1
    while place < len(processes) - 1 and processes[place].wait_output >= it.wait_output / 2:
        place += 1
    waits = f"{it.does('waits', 'wait')} {_percent(it.wait_output, seconds)} of the time for room at"
    return _other(waits, processes[place], seconds)


def _other(waits: str, other: ProcessTime, seconds: float) -> Reason:
    many, copies = len(other.stages) > 1, other.copying > other.wait_input + other.wait_output
    if copies:
        does = f"{'copy' if many else 'copies'} {_percent(other.copying, seconds)} of it: {LINK}"
    else:
        does = f"{'compute' if many else 'computes'} {_percent(other.busy, seconds)} of it"
    return Reason("link" if copies else "stage", f"{waits} {named(other.stages)}, which {does}")


def _percent(part: float, seconds: float) -> str:
    return f"{100 * min(part / seconds, 1.0):.0f} %"
