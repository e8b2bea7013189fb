"""The whole of `onward plan`: from a configuration and a question to the best setting, and what stands beside it.

It loads torch, so it runs in a process of its own (`plan_child.py`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from launch.partition.constraints import Constraints
from launch.partition.costs import Costs
from launch.partition.estimating import estimated_costs
from launch.partition.findings import PlanFindings, WhatIfFindings
from launch.partition.measuring import measured_costs
from launch.partition.planned_config import config_with
from launch.partition.request import PlanRequest
from launch.partition.search import Plan, search
from launch.partition.setting import Settings
from launch.prepare.link_kind import with_link
from pipeline.config import Config
