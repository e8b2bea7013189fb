"""What a plan is, and what it is worth: the seconds that a step takes of whatever is slowest.

That is a process with its computing and its part of the links, the way of a link, the network card of a host, or the
feed: they all work at the same time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from launch.partition.constraints import Constraints
from launch.partition.costs import Costs, StageCut, seconds_of
from launch.partition.traffic import Traffic
from workers.topology.processes import even_groups


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a network is cut and who trains the stages.

    Args:
        stages: in order.
        processes: that share the stages, as the key of the configuration; None for one process for each replica.
        bottleneck: seconds of a step; see `value_of`.
    """

    stages: tuple[StageCut, ...]
    processes: int | None
    bottleneck: float

    @property
    def devices(self) -> int:
        """How many it uses."""
        return self.processes or sum(stage.replicas for stage in self.stages)


def value_of(costs: Costs, constraints: Constraints, stages: Sequence[StageCut], processes: int | None) -> float:
    """Seconds of a step of whatever is slowest; no pipeline with these stages is faster.

    Args:
        costs: of the network.
        constraints: say which process is on which host.
        stages: in order.
        processes: see `Plan`.
    """
    return max(costs.batch * costs.feed, *group_seconds(costs, Traffic(costs, constraints), stages, processes))


def group_seconds(costs: Costs, traffic: Traffic, stages: Sequence[StageCut], processes: int | None) -> list[float]:
    """Seconds of a step for each group of stages: of its slowest replica, or of the ways and cards beside it."""
    groups, found, start = process_groups(stages, processes), [], 0
    for number, group in enumerate(groups):
        before = groups[number - 1][0].replicas if number else None
        after = groups[number + 1][0].replicas if number + 1 < len(groups) else None
        load = traffic.stage(start, before, group[0].replicas, after)
        compute = sum(seconds_of(costs, cut).compute for cut in group)
        enters = traffic.entering(group[0].stage)[group[0].first]
        leaves = traffic.leaving(group[-1].stage)[group[-1].last]
        found.append(float(load.seconds(compute, enters, leaves)))
        start += group[0].replicas
    return found


def process_groups(stages: Sequence[StageCut], processes: int | None) -> list[tuple[StageCut, ...]]:
    """The stages of each process; the replicas of a stage as one."""
    return [tuple(stages[stage - 1] for stage in group) for group in even_groups(len(stages), processes or len(stages))]
