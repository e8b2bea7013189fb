"""Bounds of the first stages of all plans, by dynamic programming over cut points, stages, ranks and replicas.

A boundary is where a level ends: after which unit, before which rank, with how many replicas. For each of them: the
seconds of a step that no plan undercuts whose first levels end there. A level is a stage, or a group of stages that
share a process.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

import numpy as np
from numpy.typing import NDArray

from launch.partition.process_tables import ROUNDING, GroupTable, StageTable
from launch.partition.traffic import Floats, StageLoad, Traffic

PREFERENCE = 1e-6
"""Of the square of the bottleneck: for it a cut of the configuration is kept, rather than work shared more evenly."""

Level = tuple[int, int, int, int]
"""Number of the level from 0, first unit, last unit, replicas."""


class Prefixes:
    """The bounds for one table of process times.

    Args:
        table: times of the levels.
        traffic: of the links between them.
        devices: ranks that plans may have.
    """

    def __init__(self, table: StageTable | GroupTable, traffic: Traffic, devices: int) -> None:
        self._table, self._traffic, self._devices = table, traffic, devices
        units, replicas = table.seconds[0].shape[0], len(table.replicas)
        shape = (devices + 1, replicas, units)
        self.bounds: list[Floats] = [np.full(shape, inf) for _ in table.seconds]
        """By level: of the rank after its last, the number of its replicas in the table, and its last unit."""
        self.update(0)

    def update(self, level: int) -> None:
        """Compute anew from this level on, whose times have changed."""
        for later in range(level, len(self.bounds)):
            bounds = self.bounds[later]
            bounds.fill(inf)
            least = self.bounds[later - 1].min(axis=1) if later else bounds.min(axis=1)
            before = _before(later, least)
            for start, number, seconds in self._levels(later, before):
                end = start + self._table.replicas[number]
                bounds[end, number] = np.maximum(before[start][:, None], seconds).min(axis=0) * ROUNDING

    def evened(self, count: int, devices: int, most: float, preferred: tuple[int, ...]) -> list[Level] | None:
        """The levels of a plan that shares work as evenly as is possible: with the least sum of squared times.

        Args:
            count: of levels.
            devices: that it uses.
            most: seconds that none of them may exceed.
            preferred: last units of levels that win over others which are next to as good.

        Returns:
            None if there is none. The plan is of bounds: it may be slower than `most`.
        """
        sums, traced = np.full((devices + 1, self.bounds[0].shape[2]), inf), []
        for level in range(count):
            before = _before(level, sums)
            penalty = np.full(sums.shape[1], PREFERENCE)
            if level < len(preferred):
                penalty[preferred[level]] = 0.0
            sums, picked = np.full_like(sums, inf), np.zeros((2, *sums.shape), dtype=int)
            for start, number, seconds in self._levels(level, before):
                replicas = self._table.replicas[number]
                squares = np.where(seconds <= most, replicas * (seconds / most) ** 2, inf) + penalty
                total = before[start][:, None] + squares
                first, least = total.argmin(axis=0), total.min(axis=0)
                end, better = start + replicas, least < sums[start + replicas]
                sums[end][better] = least[better]
                picked[0, end][better], picked[1, end][better] = first[better], replicas
            traced.append(picked)
        return _traced(traced, devices) if sums[devices, -1] < inf else None

    def _levels(self, level: int, before: Floats) -> Iterator[tuple[int, int, Floats]]:
        """First rank, number of replicas in the table, and least seconds by first and last unit, for all that can be.

        Args:
            level: of all of them.
            before: what was reached, by the first rank and unit; infinite for what was not.
        """
        reached = before.min(axis=1) < inf
        for number, replicas in enumerate(self._table.replicas):
            known: dict[tuple[StageLoad, StageLoad], Floats] = {}  # most are alike, wherever they start
            for start in np.flatnonzero(reached[: max(len(reached) - replicas, 0)]).tolist():
                sides = start, 0 if level else None, replicas
                loads = self._traffic.stage(*sides, 0), self._traffic.stage(*sides, None)
                if loads not in known:
                    known[loads] = self._seconds(level, number, *loads)
                yield start, number, known[loads]

    def _seconds(self, level: int, number: int, inner: StageLoad, end: StageLoad) -> Floats:
        """By first and last unit; the load of a level that ends with the last of all is `end`."""
        compute, stages = self._table.seconds[level][:, :, number], self._table.stages(level)
        entering = self._traffic.entering(stages[0])[:, None]
        seconds = inner.seconds(compute, entering, self._traffic.leaving(stages[-1])[None, :])
        seconds[:, -1:] = end.seconds(compute[:, -1:], entering, 0.0)
        return seconds


def _before(level: int, least: Floats) -> Floats:
    """What was reached before a level, by its first rank and unit; `least` is that by the last unit before it."""
    before = np.full_like(least, inf)
    if level:
        before[:, 1:] = least[:, :-1]
    else:
        before[0, 0] = 0.0
    return before


def _traced(picked: list[NDArray[np.int_]], devices: int) -> list[Level]:
    """From what was picked for each level by the rank after it and its last unit: the levels of one plan, in order."""
    levels: list[Level] = []
    end, last = devices, picked[0].shape[2] - 1
    for level in range(len(picked) - 1, -1, -1):
        first, replicas = (int(number) for number in picked[level][:, end, last])
        levels.insert(0, (level, first, last, replicas))
        end, last = end - replicas, first - 1
    return levels
