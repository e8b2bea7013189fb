"""The plan with the smallest bottleneck for every number of devices, exactly.

Stages are placed one after the other, so a plan is a path over the boundaries between them: which stage ends, after
which unit, on which rank, with how many replicas on either side. Two passes:

- Forward, dynamic programming over cut points, stages, ranks and replicas: a bound that no prefix of a plan undercuts
  that ends at such a boundary (`_Prefixes`). It knows on which hosts a stage is, and not how many replicas its
  neighbours have, so what it takes for the pieces of a batch between the two is the least that is possible.
- Backward, from the last unit and the last device: the boundary is extended first whose plan promises most by that
  bound, with the exact time of every stage that is passed (A*). The first path that reaches the first unit is the best.

Memory is asked for as late as possible: see `process_tables`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from itertools import count
from math import inf

import numpy as np

from launch.partition.constraints import Constraints
from launch.partition.costs import Costs
from launch.partition.objective import Plan, group_seconds
from launch.partition.prefixes import Level, Prefixes
from launch.partition.process_tables import ROUNDING, Fits, GroupTable, StageTable
from launch.partition.traffic import Traffic


class Solver:
    """The best plans of one table of process times.

    Args:
        costs: of the network.
        constraints: of the plans.
        table: says what is asked for, and how long it takes.
        traffic: of the links.
    """

    def __init__(
        self, costs: Costs, constraints: Constraints, table: StageTable | GroupTable, traffic: Traffic
    ) -> None:
        self._costs, self._constraints, self._table, self._traffic = costs, constraints, table, traffic
        self._prefixes = Prefixes(table, traffic, constraints.devices + 1)

    def can_use(self, devices: int) -> bool:
        """Whether there are plans with exactly so many devices."""
        return self._table.processes in (None, devices)

    def plan(self, levels: Sequence[Level]) -> Plan:
        """As others read it."""
        stages = tuple(cut for level in levels for cut in self._table.cuts(*level))
        slowest = max(group_seconds(self._costs, self._traffic, stages, self._table.processes))
        bottleneck = max(slowest, self._costs.batch * self._costs.feed)
        return Plan(stages=stages, processes=self._table.processes, bottleneck=bottleneck)

    def confirm(self, levels: Sequence[Level]) -> bool:
        """Ask whether the processes fit; False if that has changed what is known of their times."""
        changed = [level[0] for level in levels if self._table.ask(*level)]
        if changed:
            self._prefixes.update(min(changed))
        return not changed

    def best(self, devices: int, below: float) -> tuple[Level, ...] | None:
        """The levels of the best plan with exactly so many devices; None if none has a bottleneck below."""
        levels = self._fastest(devices, below)
        if levels is None:
            return None
        most, preferred = self.plan(levels).bottleneck, self._constraints.preferred
        own = preferred if self._table.processes is None else ()
        evened = self._prefixes.evened(len(levels), devices, most / ROUNDING, own)
        return tuple(evened) if evened and self.plan(evened).bottleneck <= most else levels

    def _fastest(self, devices: int, below: float) -> tuple[Level, ...] | None:
        """The same, of those that are as fast any one: best-first from the last device to the first."""
        heap: list[tuple[float, int, int, _Boundary]] = []
        numbers, closed = count(), set()
        promised = max(self._costs.batch * self._costs.feed, 0.0)
        for level in (goal - 1 for goal in self._table.goals):
            for number, bound in enumerate(self._prefixes.bounds[level][devices, :, -1].tolist()):
                if max(bound, promised) < below:
                    last = len(self._costs.units) - 1
                    end = _Boundary(level=level, last=last, rank=devices, number=number, bottleneck=promised)
                    heappush(heap, (max(bound, promised), level, next(numbers), end))
        while heap:
            _, level, _, boundary = heappop(heap)
            if level < 0:
                return boundary.levels()
            if boundary.key not in closed:
                closed.add(boundary.key)
                for priority, further in self._extended(boundary, below):
                    heappush(heap, (priority, further.level, next(numbers), further))
        return None

    def _extended(self, end: _Boundary, below: float) -> Iterator[tuple[float, _Boundary]]:
        """The boundaries before the level that ends here, each with the bottleneck that it promises."""
        replicas = self._table.replicas[end.number]
        start, compute = end.rank - replicas, self._table.seconds[end.level][: end.last + 1, end.last, end.number]
        stages = self._table.stages(end.level)
        entering, leaving = self._traffic.entering(stages[0]), self._traffic.leaving(stages[-1])[end.last]
        if end.level == 0:
            load = self._traffic.stage(start, None, replicas, end.after)
            bottleneck = max(end.bottleneck, float(load.seconds(compute[0], entering[0], leaving)))
            if start == 0 and bottleneck < below:
                yield (
                    bottleneck,
                    replace(end, level=-1, last=-1, rank=0, after=replicas, bottleneck=bottleneck, further=end),
                )
            return
        for number, before in enumerate(self._table.replicas):
            bounds = self._prefixes.bounds[end.level - 1][start, number, : end.last]
            if not bounds.size or bounds.min() >= below:
                continue
            load = self._traffic.stage(start, before, replicas, end.after)
            bottlenecks = np.maximum(load.seconds(compute[1:], entering[1 : end.last + 1], leaving), end.bottleneck)
            promised = np.maximum(bottlenecks, bounds)
            for last in np.flatnonzero(promised < below).tolist():
                bottleneck = float(bottlenecks[last])
                further = _Boundary(
                    level=end.level - 1, last=last, rank=start, number=number, after=replicas, bottleneck=bottleneck,
                    further=end,
                )  # fmt: skip
                yield float(promised[last]), further


@dataclass(frozen=True, kw_only=True)
class _Boundary:
    """Where a level ends, and the plan from there on; in a search from the last device to the first.

    Args:
        level: that ends, from 0; -1 where all are placed.
        last: its last unit.
        rank: after its last.
        number: of its replicas in the table.
        bottleneck: of the levels after it.
        after: replicas of the next level; None for none.
        further: the boundary after the next level; None for none.
    """

    level: int
    last: int
    rank: int
    number: int
    bottleneck: float
    after: int | None = None
    further: _Boundary | None = None

    @property
    def key(self) -> tuple[int, int, int, int, int | None]:
        """What the levels before it depend on."""
        return self.level, self.last, self.rank, self.number, self.after

    def levels(self) -> tuple[Level, ...]:
        """All levels after it."""
        found: list[Level] = []
        start, end = self, self.further
        while end is not None:
            assert start.after is not None
            found.append((end.level, start.last + 1, end.last, start.after))
            start, end = end, end.further
        return tuple(found)


def search(costs: Costs, constraints: Constraints, fits: Fits, optimistic: Fits = lambda cuts: cuts) -> dict[int, Plan]:
    """The best plan by the number of devices that it may use, for 1 to one more than there are.

    Of plans with the same bottleneck the one with fewest devices is taken, and of these the one whose processes are
    busy most evenly, which is known but for the pieces between different numbers of replicas.

    Args:
        costs: of the network.
        constraints: of the plans.
        fits: asked for the stages of every process that a plan is to have; it may take long.
        optimistic: the same at once, for a stage alone, of the recompute that it needs at the least.

    Returns:
        No plan for a number of devices with which nothing fits.
    """
    solvers = _solvers(costs, constraints, fits, optimistic)
    plans: dict[int, Plan] = {}
    best: Plan | None = None
    for devices in range(1, constraints.devices + 2):
        below = best.bottleneck if best else inf
        able = [solver for solver in solvers if solver.can_use(devices)]
        found = {solver: levels for solver in able if (levels := solver.best(devices, below))}
        while found:
            solver = min(found, key=lambda one: one.plan(found[one]).bottleneck)
            if solver.confirm(found[solver]):
                best = solver.plan(found[solver])
                break
            levels = solver.best(devices, below)
            found = {**found, solver: levels} if levels else {one: found[one] for one in found if one is not solver}
        if best is not None:
            plans[devices] = best
    return plans


def _solvers(costs: Costs, constraints: Constraints, fits: Fits, optimistic: Fits) -> list[Solver]:
    """One for a process for every replica, and one for each number of processes that share so many stages."""
    traffic, table = Traffic(costs, constraints), StageTable(costs, constraints, fits, optimistic)
    tables: list[StageTable | GroupTable] = [table]
    tables += [
        GroupTable(table, stages, processes, constraints.preferred)
        for stages in constraints.stages
        for processes in range(1, min(stages, constraints.devices + 2))
        if constraints.processes
    ]
    return [Solver(costs, constraints, one, traffic) for one in tables]
