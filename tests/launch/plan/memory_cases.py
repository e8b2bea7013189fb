"""What the replicas of a stage are made to do in tests of the account of memory; see `replica_cases`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pipeline.replicas import ReplicaGroup
from tests.launch.plan.measured import measured_peak
from tests.pipeline.small import small_config


def peak_of_a_step(team: ReplicaGroup, values: dict[str, Any]) -> dict[str, Tensor]:
    """Of stage 2 of a run, in bytes."""
    return {"peak": torch.tensor(measured_peak(small_config(**values), [2], group=team))}
