"""The whole of `onward plan`: from a configuration and a question to the best setting, and what stands beside it.

It loads torch, so it runs in a process of its own (`plan_child.py`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import torch

from launch.partition.costs import Costs
from launch.partition.estimating import estimated_costs
from launch.partition.findings import PlanFindings, SettingFindings, WhatIfFindings
from launch.partition.measuring import measured_costs
from launch.partition.memory_fit import MemoryFit
from launch.partition.planned_config import config_with
from launch.partition.request import PlanRequest, constraints_of
from launch.partition.search import Plan, search
from launch.partition.setting import Settings
from launch.plan.devices import CPU
from launch.plan.gpus import smallest_gpu
from launch.prepare.link_kind import with_link
from launch.prepare.placement import count_gpus
from pipeline.config import Config
from pipeline.errors import UserError


def plan_for(config: Config, request: PlanRequest) -> PlanFindings:
    """The best use of so many devices.

    Raises:
        UserError: nothing fits them, there are more than can be used, or it is not known how fast they are.
        ConfigError: the network cannot be cut.
    """
    begun = time.monotonic()
    device = device_of(config, request)
    costs = costs_of(config, request, device, _stages(config, request))
    ...


def what_if(config: Config, changed: Config, request: PlanRequest) -> WhatIfFindings:
    """Two settings on devices that are alike; raises as `plan_for`."""
    begun = time.monotonic()
    device = device_of(config, request)
    found = []
    for each in (config, changed):
        costs = costs_of(each, request, device, range(1, each.num_stages + 1))
        found.append(settings_of(costs, device, request).of(each))
    return WhatIfFindings(
        device=costs.device,
        estimated=costs.estimated,
        given=found[0],
        changed=found[1],
        seconds=time.monotonic() - begun,
    )
