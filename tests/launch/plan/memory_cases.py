"""What the replicas of a stage are made to do in tests of the account of memory; see `replica_cases`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pipeline.config import Config
from pipeline.replicas import ReplicaGroup
from tests.launch.plan.measured import measured_peak
from tests.pipeline.small import small_config


def peak_of_a_step(team: ReplicaGroup, values: dict[str, Any]) -> dict[str, Tensor]:
    """Of stage 2 of a run, in bytes."""
    return {"peak": torch.tensor(measured_peak(small_config(**values), [2], group=team))}


def peak_of_a_replica(team: ReplicaGroup, config: str, stage: int) -> dict[str, Tensor]:
    """Of any stage of a run, whose configuration is given as JSON, in bytes."""
    return {"peak": torch.tensor(measured_peak(Config.model_validate_json(config), [stage], group=team))}
