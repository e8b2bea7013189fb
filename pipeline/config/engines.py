"""`engine`: the library that holds the optimizer's state of a stage and applies its steps."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Tag

from pipeline.config.base import Section
from pipeline.config.kinds import by_key


class TorchEngineConfig(Section):
    """PyTorch's optimizers."""

    kind: Literal["torch"] = "torch"
    shard_optimizer: bool = False
    """Partition the optimizer's state over the replicas of a stage (ZeroRedundancyOptimizer). Parameters stay whole, so
    the results do not change, also with LARS."""


class DeepSpeedEngineConfig(Section):
    """One DeepSpeed engine per stage, over the replicas of that stage."""

    kind: Literal["deepspeed"]
    zero_stage: Annotated[int, Field(ge=0, le=2)] = 1
    """What is partitioned over the replicas: 0 nothing, 1 the optimizer's state, 2 the gradients too."""
    offload_optimizer: bool = False
    """Keep the optimizer's state in host memory and step there (AdamW only)."""


EngineConfig = Annotated[
    Annotated[TorchEngineConfig, Tag("torch")] | Annotated[DeepSpeedEngineConfig, Tag("deepspeed")],
    by_key("kind", "torch"),
]
