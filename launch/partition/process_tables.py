"""The time of every process that a plan could have, by its first and last unit; as what is known of its memory allows.

A table begins with times that no process undercuts. What a search would use is then asked for: a process that does not
fit its device is struck out, and one that has to compute again gets the time that it really takes. So a search that is
repeated until all that it would use has been asked for is exact, and most processes are never asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from heapq import heappop, heappush
from itertools import islice, pairwise
from math import inf

import numpy as np

from launch.partition.constraints import Constraints
from launch.partition.costs import Costs, StageCut, seconds_of
from launch.partition.traffic import Floats
from workers.topology.processes import even_groups

Fits = Callable[[tuple[StageCut, ...]], tuple[StageCut, ...] | None]
"""The stages of one process, with the recompute and the chunk with which a device holds them; None if none does."""

ROUNDING = 1 - 1e-12
"""Makes of a sum one that none undercuts which adds up the same numbers in another order."""

MOST_DIVISIONS = 16
"""Of the units of one process among its stages that are asked for; a process of which none fits is taken for too large.
They need nearly the same memory."""


class StageTable:
    """Of plans with a process for every replica of a stage.

    Args:
        costs: of the network.
        constraints: of the plans.
        fits: asks a device.
        optimistic: the same at once, and with less recompute than may be needed: it may not refuse what fits.
    """

    processes: int | None = None

    def __init__(self, costs: Costs, constraints: Constraints, fits: Fits, optimistic: Fits) -> None:
        self.costs, self.fits, self._optimistic = costs, fits, optimistic
        self.replicas, self.goals = constraints.replicas, constraints.stages
        self._asked: dict[tuple[int, int, int, int], tuple[StageCut, ...] | None] = {}
        shape = (len(costs.units), len(costs.units), len(self.replicas))
        self.seconds = [np.full(shape, inf) for _ in range(max(self.goals))]
        """By level, which is the stage less one: of the first unit, the last, and the number in `replicas`."""
        alike: dict[object, float] = {}
        for level, first, last in _allowed(costs, constraints):
            for number, replicas in enumerate(self.replicas):
                key = (id(costs.units_of(level + 1)), costs.ends[level + 1, last], first, last, replicas)
                if key not in alike:
                    alike[key] = self._lower_bound(level, first, last, replicas)
                self.seconds[level][first, last, number] = alike[key]

    def stages(self, level: int) -> tuple[int, ...]:
        """That a process of a level trains, counted from 1."""
        return (level + 1,)

    def cuts(self, level: int, first: int, last: int, replicas: int) -> tuple[StageCut, ...]:
        """The stages of a process that was asked for and fits."""
        answer = self._asked.get((level, first, last, replicas))
        return answer or (StageCut(stage=level + 1, first=first, last=last, replicas=replicas),)

    def ask(self, level: int, first: int, last: int, replicas: int) -> bool:
        """Ask for a process that is to be used; whether its time has changed."""
        key, number = (level, first, last, replicas), self.replicas.index(replicas)
        if key in self._asked:
            return False
        answer = self._asked[key] = self.fits(self.cuts(*key))
        before = self.seconds[level][first, last, number]
        now = max(before, _compute(self.costs, answer))
        self.seconds[level][first, last, number] = now
        return bool(now > before)

    def _lower_bound(self, level: int, first: int, last: int, replicas: int) -> float:
        return _compute(self.costs, self._optimistic(self.cuts(level, first, last, replicas)))


class GroupTable:
    """Of plans in which processes train several neighbouring stages; their units are divided as is best.

    Args:
        table: the time of each stage alone; of its numbers of replicas the first is 1.
        count: how many stages there are.
        processes: that share them.
        preferred: last units of the stages, which win over others that are as good.
    """

    def __init__(self, table: StageTable, count: int, processes: int, preferred: Sequence[int]) -> None:
        self._costs, self._fits = table.costs, table.fits
        self.processes, self.replicas, self.goals = processes, (1,), (processes,)
        self._groups = even_groups(count, processes)
        self._orders = [
            _Order(group[0], [table.seconds[stage - 1][:, :, 0].copy() for stage in group], preferred[group[0] - 1 :])
            for group in self._groups
        ]
        self.seconds = [order.least * ROUNDING for order in self._orders]
        self._divided: dict[tuple[int, int, int], _Divided] = {}

    def stages(self, level: int) -> tuple[int, ...]:
        """See `StageTable`."""
        return self._groups[level]

    def cuts(self, level: int, first: int, last: int, replicas: int) -> tuple[StageCut, ...]:
        """See `StageTable`."""
        return self._division(level, first, last).fastest[1] or ()

    def ask(self, level: int, first: int, last: int, replicas: int) -> bool:
        """See `StageTable`."""
        division, before = self._division(level, first, last), self.seconds[level][first, last, 0]
        while division.ask(self._fits) and division.fastest[0] <= before:
            pass
        now = self.seconds[level][first, last, 0] = max(before, division.fastest[0])
        return bool(now > before)

    def _division(self, level: int, first: int, last: int) -> _Divided:
        key = (level, first, last)
        if key not in self._divided:
            self._divided[key] = _Divided(self._costs, self._orders[level].divisions(first, last))
        return self._divided[key]


class _Divided:
    """The ways to divide the units of one process among its stages, the fastest first, as far as they were asked for.

    Args:
        costs: of the network.
        in_order: all of them, the fastest first.
    """

    def __init__(self, costs: Costs, in_order: Iterator[tuple[StageCut, ...]]) -> None:
        self._costs, self._in_order = costs, islice(in_order, MOST_DIVISIONS)
        self._best: tuple[float, tuple[StageCut, ...]] | None = None
        self._next: tuple[float, tuple[StageCut, ...]] | None = None
        self._advance()

    @property
    def fastest(self) -> tuple[float, tuple[StageCut, ...] | None]:
        """Seconds and stages of the fastest, as far as is known; infinite and None if none fits."""
        return self._best if self._settled and self._best else self._next or (inf, None)

    def ask(self, fits: Fits) -> bool:
        """Ask for the fastest; False if it was asked for, or none is left."""
        if self._settled or self._next is None:
            return False
        answer = fits(self._next[1])
        seconds = _compute(self._costs, answer)
        if answer is not None and (self._best is None or seconds < self._best[0]):
            self._best = (seconds, answer)
        self._advance()
        return True

    @property
    def _settled(self) -> bool:
        """Whether none that was not asked for is faster than one that fits."""
        return self._best is not None and (self._next is None or self._best[0] * ROUNDING <= self._next[0])

    def _advance(self) -> None:
        cuts = next(self._in_order, None)
        self._next = None if cuts is None else (_compute(self._costs, cuts), cuts)


class _Order:
    """The ways to divide units among neighbouring stages of one replica each, by the sum of their times.

    Args:
        stage: the first.
        alone: of each: the time by first and last unit.
        preferred: last units of them, which win over others that are as good.
    """

    def __init__(self, stage: int, alone: Sequence[Floats], preferred: Sequence[int]) -> None:
        self._stage, self._alone, self._preferred = stage, alone, preferred
        self._rest = [alone[-1]]
        """Of each stage and all after it: the least time by first unit of it and last of all."""
        for seconds in reversed(alone[:-1]):
            after = self._rest[0][1:]
            self._rest.insert(0, np.array([(row[:-1, None] + after).min(axis=0, initial=inf) for row in seconds]))

    @property
    def least(self) -> Floats:
        """The least time of all together, by first and last unit and number of replicas, which is 1."""
        return self._rest[0][:, :, None]

    def divisions(self, first: int, last: int) -> Iterator[tuple[StageCut, ...]]:
        """All for these units, the fastest first: a best-first search, which knows what the rest will take.

        What differs by rounding alone is as fast; of these it goes on with the one of which most is divided.
        """
        least = float(self._rest[0][first, last])
        unit = least * (1 - ROUNDING) or 1.0
        heap: list[tuple[int, int, int, float, tuple[int, ...]]] = [(0, 0, 0, 0.0, (first,))] if least < inf else []
        while heap:
            _, depth, others, spent, firsts = heappop(heap)
            number, start = -depth, firsts[-1]
            if number == len(self._alone):
                spans = enumerate(pairwise(firsts), self._stage)
                yield tuple(StageCut(stage=stage, first=a, last=b - 1) for stage, (a, b) in spans)
                continue
            is_last = number == len(self._alone) - 1
            for end in [last] if is_last else range(start, last):
                taken = spent + float(self._alone[number][start, end])
                whole = taken + (0.0 if is_last else float(self._rest[number + 1][end + 1, last]))
                if whole < inf:
                    other = others + (end not in self._preferred[number : number + 1])
                    entry = (round((whole - least) / unit), depth - 1, other, taken, (*firsts, end + 1))
                    heappush(heap, entry)


def _allowed(costs: Costs, constraints: Constraints) -> Iterator[tuple[int, int, int]]:
    """Level, first and last unit of every stage that a plan may have."""
    end, kept = len(costs.units) - 1, constraints.cuts
    for level in range(max(constraints.stages)):
        for first in range(level, end + 1):
            if kept is not None and first != (kept[level - 1] + 1 if level else 0):
                continue
            for last in range(first, end + 1):
                if (level + 1, last) not in costs.ends:
                    continue
                inner = (
                    last < end
                    and costs.units_of(level + 1)[last].output > 0
                    and (kept is None or (*kept, end)[level] == last)
                )
                if inner or (last == end and level + 1 in constraints.stages):
                    yield level, first, last


def _compute(costs: Costs, cuts: tuple[StageCut, ...] | None) -> float:
    return inf if cuts is None else sum(seconds_of(costs, cut).compute for cut in cuts)
