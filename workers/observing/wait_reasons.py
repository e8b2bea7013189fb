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
"""What time is lost to: images, copying, another stage, processes that were replaced, the first steps until all stages
had work, and (where one process trains all stages) snapshots and reports."""
LINK = "see link.kind and link.codec"


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


@dataclass(frozen=True)
class Reason:
    """Why, and a sentence about it."""

    cause: Cause
    sentence: str


def named(stages: tuple[int, ...]) -> str:
    """As messages have a process."""
    return stage_name(stages[0]) if len(stages) == 1 else f"stages {stages[0]}-{stages[-1]}"


def reason_of(
    config: Config, processes: Sequence[ProcessTime], slowest: int, seconds: float, lost: float
) -> Reason | None:
    """The largest part of the time in which the slowest process does not compute.

    Args:
        config: of the run.
        processes: in order.
        slowest: which of them.
        seconds: that all this took.
        lost: of these, until processes that were replaced had caught up; others have waited meanwhile.
    """
    it = processes[slowest]
    idle, rest = seconds - it.busy, max(seconds - it.whole, 0.0)
    largest = max(it.wait_input, it.wait_output, it.copying, rest)
    if largest <= 0 or seconds <= 0:
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
        who = "the run" if config.in_one_process else named(it.stages)
        remedy = "" if config.in_one_process else f": {LINK}"
        return Reason("link", f"{who} copies {_percent(it.copying, seconds)} of its time{remedy}")
    if config.in_one_process:
        return Reason("snapshots", f"snapshots and reports take {_percent(rest, seconds)} of the time")
    return Reason("fill", f"{_percent(rest, seconds)} of the time went by until all stages had work: a short run")


def _input(config: Config, processes: Sequence[ProcessTime], slowest: int, seconds: float) -> Reason:
    """It waits for its input: for a stage before it that does something else, or for images."""
    it = processes[slowest]
    place = slowest - 1
    while place >= 0 and processes[place].wait_input >= it.wait_input / 2:
        place -= 1
    share = _percent(it.wait_input, seconds)
    if place < 0:
        who = "the run" if config.in_one_process else named(it.stages)
        remedy = f"raise data.workers (it is {config.data.workers})"
        return Reason("feed", f"{who} waits for images {share} of its time: {remedy}")
    return _other(f"{named(it.stages)} waits {share} of its time for", processes[place], seconds)


def _output(processes: Sequence[ProcessTime], slowest: int, seconds: float) -> Reason:
    """It waits for room: for a stage after it that does something else than to wait likewise."""
    it = processes[slowest]
    place = slowest + 1
    while place < len(processes) - 1 and processes[place].wait_output >= it.wait_output / 2:
        place += 1
    share = _percent(it.wait_output, seconds)
    return _other(f"{named(it.stages)} waits {share} of its time for room at", processes[place], seconds)


def _other(waits: str, other: ProcessTime, seconds: float) -> Reason:
    who = f"{waits} {named(other.stages)}"
    if other.copying > other.wait_input + other.wait_output:
        return Reason("link", f"{who}, which copies {_percent(other.copying, seconds)} of it: {LINK}")
    return Reason("stage", f"{who}, which computes {_percent(other.busy, seconds)} of it")


def _percent(part: float, seconds: float) -> str:
    return f"{100 * min(part / seconds, 1.0):.0f} %"
