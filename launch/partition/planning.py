"""The whole of `onward plan`: from a configuration and a question to the best setting, and what stands beside it.

It loads torch, so it runs in a process of its own (`plan_child.py`).
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

import torch

from launch.partition.constraints import Constraints
from launch.partition.costs import Costs, StageCut
from launch.partition.estimating import estimated_costs
from launch.partition.findings import PlanFindings, WhatIfFindings
from launch.partition.measuring import measured_costs
from launch.partition.memory_fit import MemoryFit
from launch.partition.objective import Plan
from launch.partition.planned_config import config_with
from launch.partition.request import PlanRequest, constraints_of
from launch.partition.search import search
from launch.partition.setting import Settings
from launch.plan.gpus import GIB, smallest_gpu
from launch.prepare.link_kind import with_link
from launch.prepare.placement import count_gpus
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.shapes import boundary_shapes

CPU = "cpu"


def plan_for(config: Config, request: PlanRequest) -> PlanFindings:
    """The best use of so many devices.

    Raises:
        UserError: nothing fits them, there are more than can be used, or it is not known how fast they are.
        ConfigError: the network cannot be cut.
    """
    begun = time.monotonic()
    planner = _Planner(config, request)
    plans = planner.plans
    plan = plans.get(request.devices)
    if plan is None:
        raise UserError(planner.why_nothing_fits())
    settings = planner.settings
    best = settings.of(config_with(config, plan))
    more = plans.get(request.devices + 1)
    return PlanFindings(
        device=planner.costs.device,
        estimated=planner.costs.estimated,
        plan=best,
        now=settings.of(config),
        more=None if more is None else settings.images_per_second(config_with(config, more)),
        free=planner.without_keeping_cuts(),
        roomy=planner.without_limit_of_memory(plan),
        seconds=time.monotonic() - begun,
    )


def what_if(config: Config, changed: Config, request: PlanRequest) -> WhatIfFindings:
    """Two settings on devices that are alike; raises as `plan_for`."""
    begun = time.monotonic()
    one, other = (_Planner(each, request) for each in (config, changed))
    return WhatIfFindings(
        device=one.costs.device,
        estimated=one.costs.estimated,
        given=one.settings.of(config),
        changed=other.settings.of(changed),
        seconds=time.monotonic() - begun,
    )


@dataclass(frozen=True)
class _Planner:
    """What one question needs, each computed once."""

    config: Config
    request: PlanRequest

    @cached_property
    def device(self) -> str:
        """That the times are of: `cpu`, or the name of a GPU."""
        if self.request.gpu is not None:
            return self.request.gpu
        if self.config.device == CPU or not count_gpus():
            return CPU
        name: str = torch.cuda.get_device_name(0)
        return name

    @cached_property
    def costs(self) -> Costs:
        """Of the network, with the kind of link that the hosts have."""
        config, request = with_link(self.config, on_one_host=self.request.hosts == 1), self.request
        stages = self._stages()
        if request.measure:
            costs = measured_costs(config, stages=stages)
        else:
            here = None if request.gpu is not None or self.device == CPU else smallest_gpu()
            costs = estimated_costs(config, self.device, stages=stages, memory=here)
        sent = config.data.feed == "coordinator"
        return replace(costs, input=prod(boundary_shapes(config)[0]) // costs.batch if sent else 0)

    def _stages(self) -> Collection[int]:
        if self.request.stages == "any":
            return range(1, self.request.devices + 2)
        return range(1, (self.request.stages or self.config.num_stages) + 1)

    @cached_property
    def settings(self) -> Settings:
        """Says what is to be known of configurations on these devices."""
        hosts, devices = self.request.hosts, self.request.devices
        return Settings(
            self.costs,
            on_gpu=self.device != CPU,
            per_host=-(-devices // hosts),
            several_hosts=hosts > 1,
        )

    def _constraints(self, request: PlanRequest) -> Constraints:
        return constraints_of(self.config, request, [unit.unit for unit in self.costs.units])

    @cached_property
    def fit(self) -> MemoryFit:
        """What devices hold."""
        return MemoryFit(self.config, self.costs, self.device != CPU, self.settings.memories)

    @cached_property
    def plans(self) -> dict[int, Plan]:
        """The best by the number of devices."""
        constraints = self._constraints(self.request)
        self._check_cuts(min(constraints.stages))
        return search(self.costs, constraints, self.fit, self.fit.optimistic)

    def _check_cuts(self, stages: int) -> None:
        points = [unit.unit for unit in self.costs.units[:-1] if unit.output]
        if len(points) < stages - 1:
            where = f"one tensor passes after {', '.join(points)} alone" if points else "nowhere does one tensor pass"
            raise UserError(
                f"--stages: got {stages}, and {self.config.model.backbone} can be cut into {len(points) + 1} at most: "
                f"{where}. Give --stages {len(points) + 1} or fewer"
            )

    def without_keeping_cuts(self) -> float | None:
        """Images a second of the best plan with other cuts; None unless they were kept."""
        if not self.request.keep_cuts:
            return None
        free = search(
            self.costs, self._constraints(replace(self.request, keep_cuts=False)), self.fit, self.fit.optimistic
        )
        return self._rate(free.get(self.request.devices))

    def without_limit_of_memory(self, plan: Plan) -> float | None:
        """Images a second of the best plan if memory were no matter; None where it is none."""
        if all(stage.recompute == "none" and stage.chunk is None for stage in plan.stages):
            return None
        return self._rate(search(self.costs, self._constraints(self.request), _any).get(self.request.devices))

    def _rate(self, plan: Plan | None) -> float | None:
        return None if plan is None else self.settings.images_per_second(config_with(self.config, plan))

    def why_nothing_fits(self) -> str:
        """What no device holds, and what would need less."""
        devices, has = self.request.devices, f"{self.costs.memory / GIB:.1f} GiB"
        remedy = "Give a smaller data.batch_size, head.projector or head.width, or a GPU with more memory"
        for number, unit in enumerate(self.costs.units):
            if not any(self.fit((cut,)) for cut in self._alone(number)):
                return (
                    f"{unit.unit}, with the head behind it, needs more than the {has} of {self.costs.device}, whatever "
                    f"is computed again and on as many as {devices} replicas. {remedy}"
                )
        return (
            f"no plan for {devices} {'device' if devices == 1 else 'devices'} fits {self.costs.device}, which has "
            f"{has}, whatever is computed again. Give more --gpus. {remedy}"
        )

    def _alone(self, unit: int) -> Iterator[StageCut]:
        """A unit as a stage of its own, of any number and with any number of replicas, the most first."""
        for replicas in reversed(self._constraints(self.request).replicas):
            for stage, last in self.costs.ends:
                if last == unit:
                    yield StageCut(stage=stage, first=unit, last=unit, replicas=replicas)


def _any(cuts: tuple[StageCut, ...]) -> tuple[StageCut, ...]:
    return cuts
