"""The whole of `onward plan`: from a configuration and a question to the best setting, and what stands beside it.

It loads torch, so it runs in a process of its own (`plan_child.py`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

import torch

from launch.partition.constraints import Constraints
from launch.partition.costs import Costs, StageCut
from launch.partition.estimating import estimated_costs
from launch.partition.findings import FedPlan, PlanFindings, WhatIfFindings
from launch.partition.measuring import measured_costs
from launch.partition.memory_fit import MemoryFit
from launch.partition.memory_shortage import why_nothing_fits
from launch.partition.objective import Plan
from launch.partition.planned_config import config_with
from launch.partition.process_tables import Fits
from launch.partition.request import PlanRequest, constraints_of
from launch.partition.search import search
from launch.partition.setting import Settings
from launch.plan.devices import CPU
from launch.plan.gpus import smallest_gpu
from launch.prepare.link_kind import with_link
from launch.prepare.placement import count_gpus
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.shapes import boundary_shapes

PATIENCE = 45.0
"""Seconds of the processor in which no process of a plan was found to fit, one after the other, before it is given up:
each takes a second or several, and there may be thousands."""


class OutOfPatience(Exception):
    """Nothing was found to fit for long."""


def plan_for(config: Config, request: PlanRequest) -> PlanFindings:
    """The best use of so many devices.

    Raises:
        UserError: nothing fits them, there are more than can be used, or it is not known how fast they are.
        ConfigError: the network cannot be cut.
    """
    begun = time.monotonic()
    planner = _Planner(config, request)
    try:
        plans = planner.plans
    except OutOfPatience:
        plans = {}
    plan = plans.get(request.devices)
    if plan is None:
        raise UserError(why_nothing_fits(planner.fit, request.devices))
    settings = planner.settings
    best = settings.of(planner.config_of(plan))
    return PlanFindings(
        device=planner.costs.device,
        estimated=planner.costs.estimated,
        plan=best,
        now=settings.of(config),
        more=planner.rate(plans.get(request.devices + 1)),
        free=planner.without_keeping_cuts(),
        roomy=planner.without_limit_of_memory(plan),
        fed=planner.with_images_at_hand() if best.limit == "feed" else None,
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
    def opened(self) -> Config:
        """The run with `memory.recompute` left to the plan: any gives the same bits, and it was chosen for other cuts.

        Compiled code rounds differently when it is computed again, so that stays as it is.
        """
        if any(self.config.stage(index).precision.compile for index in range(1, self.config.num_stages + 1)):
            return self.config
        stages = {
            index: own.model_copy(update={"memory": {k: v for k, v in own.memory.items() if k != "recompute"}})
            for index, own in self.config.stages.items()
        }
        memory = self.config.memory.model_copy(update={"recompute": "auto"})
        return self.config.model_copy(update={"memory": memory, "stages": stages})

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

    def _stages(self) -> Sequence[int]:
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

    @cached_property
    def units(self) -> list[str]:
        """Names of all units of the network, in order."""
        return [unit.unit for unit in self.costs.units]

    @cached_property
    def fit(self) -> MemoryFit:
        """What devices hold."""
        return self._fit_within(constraints_of(self.config, self.request, self.units))

    def _fit_within(self, constraints: Constraints) -> MemoryFit:
        return MemoryFit(
            self.opened, self.costs, constraints, on_gpu=self.device != CPU, memories=self.settings.memories
        )

    @cached_property
    def plans(self) -> dict[int, Plan]:
        """The best for the devices that there are, and for one more."""
        self._check_cuts(min(self.fit.constraints.stages))
        fit, devices = self.fit, self.request.devices
        return search(self.costs, fit.constraints, patient(fit), fit.optimistic, (devices, devices + 1))

    def _best(self, costs: Costs, fit: MemoryFit) -> Plan | None:
        devices = self.request.devices
        try:
            return search(costs, fit.constraints, patient(fit), fit.optimistic, (devices,)).get(devices)
        except OutOfPatience:
            return None

    def config_of(self, plan: Plan) -> Config:
        """The run as a plan has it."""
        return config_with(self.opened, plan, self.units)

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
        fit = self._fit_within(constraints_of(self.config, replace(self.request, keep_cuts=False), self.units))
        return self.rate(self._best(self.costs, fit))

    def without_limit_of_memory(self, plan: Plan) -> float | None:
        """Images a second of the best plan if memory were no matter; None where it is none."""
        if all(stage.recompute == "none" and stage.chunk is None for stage in plan.stages):
            return None
        devices = self.request.devices
        return self.rate(search(self.costs, self.fit.constraints, _any, numbers=(devices,)).get(devices))

    def with_images_at_hand(self) -> FedPlan | None:
        """The best plan if the feed took no time."""
        plan = self._best(replace(self.costs, feed=0.0), self.fit)
        if plan is None:
            return None
        return FedPlan(
            devices=plan.devices, images_per_second=self.settings.images_per_second(self.config_of(plan), fed=False)
        )

    def rate(self, plan: Plan | None) -> float | None:
        """Images a second of a plan, if there is one."""
        return None if plan is None else self.settings.images_per_second(self.config_of(plan))


def patient(fit: Fits) -> Fits:
    """The same, until it has said no for so long that nothing can be expected to fit."""
    refused = 0.0

    def fits(cuts: tuple[StageCut, ...]) -> tuple[StageCut, ...] | None:
        nonlocal refused
        begun = time.process_time()
        answer = fit(cuts)
        refused += time.process_time() - begun if answer is None else -refused
        if refused > PATIENCE:
            raise OutOfPatience
        return answer

    return fits


def _any(cuts: tuple[StageCut, ...]) -> tuple[StageCut, ...]:
    return cuts
