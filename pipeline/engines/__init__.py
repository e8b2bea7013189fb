"""Engines: compute the gradients of a stage's loss and update its parameters; `engine.kind` chooses which.

- `base.py`: the interface of an engine: backward pass, gradients, optimizer step, state
- `deepspeed_engine.py`: DeepSpeed as the engine of a stage: ZeRO 1 and 2, Adam in host memory, bf16 parameters with
  fp32 masters
- `deepspeed_state.py`: where DeepSpeed keeps the state of its optimizer: whole, or in partitions spread over the
  replicas
- `full_norms.py`: batch norms in a network whose weights are bf16: they see them in fp32, as their statistics are
- `torch_engine.py`: PyTorch's optimizers as the engine of a stage, with gradients averaged over its replicas
"""

from __future__ import annotations

import torch
from torch import nn

from pipeline.config import StageConfig
from pipeline.config.engines import DeepSpeedEngineConfig as DeepSpeedSettings
from pipeline.engines.base import OPTIMIZER, Engine
from pipeline.engines.torch_engine import TorchEngine
from pipeline.optim import build_optimizer
from pipeline.replicas import SOLO, ReplicaGroup

__all__ = ["OPTIMIZER", "Engine", "TorchEngine", "build_engine", "idle_engine"]


def idle_engine() -> Engine:
    """The engine of a stage that keeps its weights: it has no parameters and no state."""
    return TorchEngine(nn.ModuleDict(), torch.optim.SGD([{"params": [], "lr_ratio": 1.0}], lr=0.0), SOLO)


def build_engine(config: StageConfig, module: nn.Module, team: ReplicaGroup, device: torch.device) -> Engine:
    """The engine that `engine.kind` names.

    Args:
        config: of the stage.
        module: what is trained, on its device; the names of its parameters are those of the engine's state.
        team: the replicas of the stage. DeepSpeed needs torch.distributed's default group, also for one replica.
        device: of the stage.

    Raises:
        UserError: DeepSpeed cannot be used here.
    """
    optimizer = build_optimizer(config.optimizer, module)
    if isinstance(config.engine, DeepSpeedSettings):
        from pipeline.engines.deepspeed_engine import DeepSpeedEngine  # takes seconds to import, and few want it

        return DeepSpeedEngine(config, module, optimizer, team, device)
    return TorchEngine(module, optimizer, team, shard=config.engine.shard_optimizer)
