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

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from itertools import count
from math import inf, nextafter
from sys import float_info

import numpy as np

from launch.partition.constraints import Constraints
from launch.partition.costs import Costs
from launch.partition.objective import Plan, group_seconds
from launch.partition.prefixes import Level, Prefixes
from launch.partition.process_tables import ROUNDING, Fits, GroupTable, StageTable
from launch.partition.traffic import Traffic

MOST = float_info.max
"""Seconds of a step: less than infinite, which stands for what is not possible."""


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
        self._prefixes, self._feed = Prefixes(table, traffic, constraints.devices + 1), costs.batch * costs.feed
        self.version = 0
        """Of what is known of the processes."""

    def can_use(self, devices: int) -> bool:
        """Whether there are plans with exactly so many devices."""
        return self._table.processes in (None, devices)

    def bound(self, devices: int) -> float:
        """Seconds of a step that no plan with exactly so many devices undercuts."""
        ends = [self._prefixes.bounds[goal - 1][devices, :, -1].min() for goal in self._table.goals]
        return max(self._feed, float(min(ends)))

    def plan(self, levels: Sequence[Level]) -> Plan:
        """As others read it."""
        stages = tuple(cut for level in levels for cut in self._table.cuts(*level))
        slowest = max(group_seconds(self._costs, self._traffic, stages, self._table.processes))
        return Plan(stages=stages, processes=self._table.processes, bottleneck=max(slowest, self._feed))

    def confirm(self, levels: Sequence[Level]) -> bool:
        """Ask whether the processes fit; False if that has changed what is known of their times."""
        changed = [level[0] for level in levels if self._table.ask(*level)]
        if changed:
            self._prefixes.update(min(changed))
            self.version += 1
        return not changed

    def best(self, devices: int, most: float) -> tuple[Level, ...] | None:
        """The levels of the best plan with exactly so many devices; None if the bottleneck of all is above `most`."""
        levels = self._fastest(devices, most)
        if levels is None:
            return None
        most, preferred = self.plan(levels).bottleneck, self._constraints.preferred
        own = preferred if self._table.processes is None else ()
        evened = self._prefixes.evened(len(levels), devices, most / ROUNDING, own)
        return tuple(evened) if evened and self.plan(evened).bottleneck <= most else levels

    def _fastest(self, devices: int, most: float) -> tuple[Level, ...] | None:
        """The same, of those that are as fast any one: best-first from the last device to the first."""
        heap: list[tuple[float, int, int, _Boundary]] = []
        numbers, closed = count(), set()
        for level in (goal - 1 for goal in self._table.goals):
            for number, bound in enumerate(self._prefixes.bounds[level][devices, :, -1].tolist()):
                if bound <= most:
                    last = len(self._costs.units) - 1
                    end = _Boundary(level=level, last=last, rank=devices, number=number, bottleneck=self._feed)
                    heappush(heap, (max(bound, self._feed), level, next(numbers), end))
        while heap:
            _, level, _, boundary = heappop(heap)
            if level < 0:
                return boundary.levels()
            if boundary.key not in closed:
                closed.add(boundary.key)
                for priority, further in self._extended(boundary, most):
                    heappush(heap, (priority, further.level, next(numbers), further))
        return None

    def _extended(self, end: _Boundary, most: float) -> Iterator[tuple[float, _Boundary]]:
        """The boundaries before the level that ends here, each with the bottleneck that it promises."""
        replicas = self._table.replicas[end.number]
        start, compute = end.rank - replicas, self._table.seconds[end.level][: end.last + 1, end.last, end.number]
        stages = self._table.stages(end.level)
        entering, leaving = self._traffic.entering(stages[0]), self._traffic.leaving(stages[-1])[end.last]
        if end.level == 0:
            load = self._traffic.stage(start, None, replicas, end.after)
            bottleneck = max(end.bottleneck, float(load.seconds(compute[0], entering[0], leaving)))
            if start == 0 and bottleneck <= most:
                yield (
                    bottleneck,
                    replace(end, level=-1, last=-1, rank=0, after=replicas, bottleneck=bottleneck, further=end),
                )
            return
        for number, before in enumerate(self._table.replicas):
            bounds = self._prefixes.bounds[end.level - 1][start, number, : end.last]
            if not bounds.min(initial=inf) <= most:
                continue
            load = self._traffic.stage(start, before, replicas, end.after)
            bottlenecks = np.maximum(load.seconds(compute[1:], entering[1 : end.last + 1], leaving), end.bottleneck)
            promised = np.maximum(bottlenecks, bounds)
            for last in np.flatnonzero(promised <= most).tolist():
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


@dataclass(frozen=True)
class _Candidate:
    """The best plan of one solver with exactly so many devices, as far as is known.

    Args:
        bottleneck: of it, or a bound that it does not undercut.
        levels: of it; None if it was not looked for, or not for one as slow.
        version: of what was known of the processes; then it still holds as a bound.
    """

    bottleneck: float
    levels: tuple[Level, ...] | None
    version: int


def search(
    costs: Costs,
    constraints: Constraints,
    fits: Fits,
    optimistic: Fits = lambda cuts: cuts,
    numbers: Collection[int] | None = None,
) -> dict[int, Plan]:
    """The best plan by the number of devices that it may use.

    Of plans with the same bottleneck the one with fewest devices is taken, and of these the one whose processes are
    busy most evenly, which is known but for the pieces between different numbers of replicas.

    Args:
        costs: of the network.
        constraints: of the plans.
        fits: asked for the stages of every process that a plan is to have; it may take long.
        optimistic: the same at once, for a stage alone, of the recompute that it needs at the least.
        numbers: of devices; 1 to one more than there are if not given. The fewer, the less is asked for.

    Returns:
        No plan for a number of devices with which nothing fits.
    """
    solvers = _solvers(costs, constraints, fits, optimistic)
    candidates = {
        (solver, devices): _Candidate(solver.bound(devices), None, -1)
        for devices in range(1, constraints.devices + 2)
        for solver in solvers
        if solver.can_use(devices)
    }
    wanted = range(1, constraints.devices + 2) if numbers is None else sorted(numbers)
    found = {devices: _best_of(candidates, devices) for devices in wanted}
    return {devices: plan for devices, plan in found.items() if plan is not None}


def _best_of(candidates: dict[tuple[Solver, int], _Candidate], most: int) -> Plan | None:
    """Of all candidates with at most so many devices; what is found on the way is kept for the next time."""
    while True:
        able = [key for key, candidate in candidates.items() if key[1] <= most and candidate.bottleneck < inf]
        if not able:
            return None
        solver, devices = key = min(able, key=lambda key: (candidates[key].bottleneck, key[1]))
        levels = candidates[key].levels
        if levels is None or candidates[key].version < solver.version:
            now = (one for one in able if candidates[one].levels and candidates[one].version == one[0].version)
            rival = min((candidates[one].bottleneck for one in now), default=MOST)
            levels = solver.best(devices, rival)
            bottleneck = nextafter(rival, inf) if levels is None else solver.plan(levels).bottleneck
            candidates[key] = _Candidate(bottleneck, levels, solver.version)
        elif solver.confirm(levels):
            return solver.plan(levels)


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
