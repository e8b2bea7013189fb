"""What DeepSpeed is told, and what is refused before it is asked; without starting it."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.distributed import ProcessGroup

from pipeline.engines.deepspeed_engine import DeepSpeedEngine, deepspeed_config
from pipeline.errors import ConfigError
from pipeline.objectives import build_objective
from pipeline.optim import build_optimizer
from pipeline.replicas.team import SOLO, ReplicaGroup
from tests.pipeline.engines.deepspeed_cases import CASES, OFFLOADED, make_module, stage_config

CPU = torch.device("cpu")


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which DeepSpeed's Adam cannot be compiled."""
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    from deepspeed.ops.op_builder import CPUAdamBuilder

    def fail(_builder: object) -> None:
        raise RuntimeError("Ninja is required to load C++ extensions")

    monkeypatch.setattr(CPUAdamBuilder, "load", fail)


@pytest.mark.processes
@pytest.mark.usefixtures("no_compiler")
def test_what_is_missing_to_compile_is_said() -> None:
    from pipeline.engines.deepspeed_engine import _cpu_adam

    config, module = stage_config(OFFLOADED["offload-1"]), make_module()
    with pytest.raises(ConfigError, match=r"stage 1 \(RuntimeError: Ninja is required.*Install a C\+\+ compiler"):
        _cpu_adam(build_optimizer(config.optimizer, module), config.index)


def test_bf16_refuses_an_objective_with_weights() -> None:
    config = stage_config({**CASES["bf16-1"], "objective": {"kind": "byol", "predictor": (8, 5), "momentum": 0.9}})
    module = nn.ModuleDict({"objective": build_objective(config.objective, 5, 0, 1)})
    team = ReplicaGroup(0, 1, ProcessGroup(0, 1))
    with pytest.raises(ConfigError, match="the objective BYOL has weights"):
        DeepSpeedEngine(config, module, build_optimizer(config.optimizer, module), team, CPU)


def test_it_wants_a_group() -> None:
    config, module = stage_config(CASES["adamw-1"]), make_module()
    with pytest.raises(ValueError, match="needs a process group"):
        DeepSpeedEngine(config, module, build_optimizer(config.optimizer, module), SOLO, CPU)


def test_what_deepspeed_is_told() -> None:
    told = deepspeed_config(stage_config(OFFLOADED["offload-2"]), 1000, torch.device("cuda:1"))
    assert told["gradient_clipping"] == 0.05
    assert told["zero_optimization"]["offload_optimizer"] == {"device": "cpu", "pin_memory": True}
    assert told["zero_optimization"]["stage"] == 2
    assert told["zero_optimization"]["reduce_bucket_size"] == 1000
    assert not told["bf16"]["enabled"]
    told = deepspeed_config(stage_config(CASES["bf16-1"]), 10**9, CPU)
    assert told["bf16"]["enabled"]
    assert told["gradient_clipping"] == 0.0
    assert "offload_optimizer" not in told["zero_optimization"]
    assert told["zero_optimization"]["reduce_bucket_size"] * 4 == 25 * 2**20
