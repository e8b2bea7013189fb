"""One replica of a stage under DeepSpeed: runs every case of `test_deepspeed.py`, because starting up takes seconds.

`python deepspeed_peer.py RANK SIZE STORE RESULTS [offload] [EARLIER]`: the first replica writes to RESULTS what every
case left, `CASE/NAME` each; EARLIER are results of a team of another size, from whose state cases go on.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipeline.engines.deepspeed_engine import DeepSpeedEngine
from pipeline.optim import build_optimizer
from pipeline.replicas.team import ReplicaGroup, ReplicaLost
from tests.pipeline.engines.deepspeed_cases import (
    CASES,
    OFFLOADED,
    REFUSED,
    STAGES,
    STEPS,
    loss_of,
    make_module,
    set_rate,
    stage_config,
    whole_stage,
)


def make_stage(
    case: Mapping[str, Any], team: ReplicaGroup, shift: float = 0.0
) -> tuple[nn.ModuleDict, DeepSpeedEngine]:
    """The stage before its first step; `shift` is added to its weights."""
    config = stage_config(case)
    module = make_module(config.precision.dtype == "bf16")
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(shift)
    if team.rank:
        nn.init.zeros_(module["head"].weight)  # the engine takes the weights of the first replica
    return module, DeepSpeedEngine(config, module, build_optimizer(config.optimizer, module), team, torch.device("cpu"))


def learn(
    module: nn.ModuleDict, engine: DeepSpeedEngine, case: Mapping[str, Any], team: ReplicaGroup, steps: range
) -> None:
    half = "precision" in case
    for step in steps:
        engine.zero_grad()
        engine.backward(loss_of(module, step, team.rank, team.size, half))
        engine.await_gradients()
        set_rate(engine.optimizer, step)
        if "clip_norm" in case["optimizer"]:
            engine.clip(case["optimizer"]["clip_norm"])
        assert engine.step()


def state_of(module: nn.ModuleDict, engine: DeepSpeedEngine) -> dict[str, Tensor]:
    """As a snapshot has it."""
    state = {**module.state_dict(), **engine.tensors()}
    return {name: value.detach().clone() for name, value in state.items()}


def restored(
    case: Mapping[str, Any], team: ReplicaGroup, state: Mapping[str, Tensor]
) -> tuple[nn.ModuleDict, DeepSpeedEngine]:
    """`state` in a stage that was built with other weights."""
    module, engine = make_stage(case, team, shift=1.0)
    module.load_state_dict({name: value for name, value in state.items() if not name.startswith("optimizer.")})
    engine.load(state)
    return module, engine


def straight(case: Mapping[str, Any], team: ReplicaGroup) -> dict[str, Tensor]:
    module, engine = make_stage(case, team)
    assert not any(name.startswith("optimizer.") for name in engine.tensors())
    learn(module, engine, case, team, range(STEPS))
    return state_of(module, engine) | {f"live.{name}": p.detach().clone() for name, p in module.named_parameters()}


def early(case: Mapping[str, Any], team: ReplicaGroup) -> dict[str, Tensor]:
    module, engine = make_stage(case, team)
    learn(module, engine, case, team, range(3))
    return state_of(module, engine)


def resumed(case: Mapping[str, Any], team: ReplicaGroup, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    module, engine = restored(case, team, state)
    learn(module, engine, case, team, range(3, STEPS))
    return state_of(module, engine)


def resumed_at_once(case: Mapping[str, Any], team: ReplicaGroup) -> dict[str, Tensor]:
    """From a state before the first step."""
    module, engine = restored(case, team, state_of(*make_stage(case, team)))
    learn(module, engine, case, team, range(STEPS))
    return state_of(module, engine)


def skipping(case: Mapping[str, Any], team: ReplicaGroup) -> dict[str, Tensor]:
    """A loss that is not finite, of which the stage makes no step, between the steps."""
    module, engine = make_stage(case, team)
    for step in range(STEPS):
        engine.zero_grad()
        buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
        engine.backward(loss_of(module, step, team.rank, team.size, "precision" in case) * float("nan"))
        for name, buffer in module.named_buffers():
            buffer.copy_(buffers[name])
        learn(module, engine, case, team, range(step, step + 1))
    return state_of(module, engine)


def overflowing(case: Mapping[str, Any], team: ReplicaGroup) -> dict[str, Tensor]:
    """A finite loss whose gradient is not, on one replica alone; every replica must leave the step out."""
    module, engine = make_stage(case, team)
    learn(module, engine, case, team, range(2))
    before = state_of(module, engine)
    engine.zero_grad()
    weight = module["head"].weight
    hook = weight.register_hook(lambda g: g * float("inf")) if team.rank == team.size - 1 else None
    engine.backward(loss_of(module, 2, team.rank, team.size, "precision" in case))
    if hook:
        hook.remove()
    moved = engine.step()
    after = state_of(module, engine)
    same = all(
        torch.equal(before[name], after[name]) for name in before if "running" not in name and "num_" not in name
    )
    return {"moved": torch.tensor(moved), "same": torch.tensor(same)}


def refusals(team: ReplicaGroup) -> None:
    """What `load` and `clip` do not take."""
    case = CASES["clipped-1"]
    _, engine = make_stage(case, team)
    expect(ValueError, "clips to 0.05, and was asked for 7", lambda: engine.clip(7))
    expect(RuntimeError, "no parameter 'nobody'", lambda: engine.load({"optimizer.exp_avg.nobody": torch.zeros(1)}))
    steps = {"optimizer.step.head.weight": torch.tensor(1.0), "optimizer.step.block.0.weight": torch.tensor(2.0)}
    expect(RuntimeError, "from 1 to 2", lambda: engine.load(steps))


def expect(kind: type[Exception], words: str, call: Callable[[], object]) -> None:
    with pytest.raises(kind, match=words):
        call()


def lose_a_replica(team: ReplicaGroup) -> None:
    """The last replica goes without a word; the others must say so."""
    case = CASES["adamw-2"]
    module, engine = make_stage(case, team)
    learn(module, engine, case, team, range(1))
    if team.rank == team.size - 1:
        os._exit(0)
    expect(ReplicaLost, "does not answer", lambda: learn(module, engine, case, team, range(1, STEPS)))
    os._exit(0)  # what is left of the group cannot be shut down in order


def main(rank: int, size: int, store: str, results: str, *options: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=size, timeout=timedelta(seconds=240))
    team = ReplicaGroup(rank, size, dist.group.WORLD)
    cases = OFFLOADED if "offload" in options else CASES
    earlier = {name: load_file(name) for name in options if name != "offload"}
    found: dict[str, Tensor] = {}

    def keep(case: str, tensors: Mapping[str, Tensor]) -> None:
        found.update({f"{case}/{name}": value.contiguous() for name, value in tensors.items()})

    for name, case in cases.items():
        state = early(case, team)
        if "precision" in case:
            module, engine = make_stage(case, team)
            engine.load({})  # as for a run whose initial weights (`init_from`) have nothing for these
            keep(f"{name}/untrained", state_of(module, engine))
        keep(f"{name}/straight", straight(case, team))
        keep(f"{name}/early", state)
        keep(f"{name}/resumed", resumed(case, team, state))
        keep(f"{name}/resumed_at_once", resumed_at_once(case, team))
        keep(f"{name}/skipping", skipping(case, team))
        if case["engine"]["zero_stage"] or "precision" in case:
            keep(f"{name}/overflowing", overflowing(case, team))
        for values in earlier.values():
            prefix = f"{name}/early/"
            theirs = {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}
            keep(f"{name}/taken_over", state_of(*restored(case, team, theirs)))
            keep(f"{name}/regrouped", resumed(case, team, theirs))
    if cases is CASES:
        for name, sections in STAGES.items():
            keep(name, {f"straight/{key}": value.detach() for key, value in whole_stage(sections, team).items()})
        keep("adamw-2/again", straight(CASES["adamw-2"], team))
        keep("lars-1/straight", straight(REFUSED["lars-1"], team))
        refusals(team)
    if rank == 0:
        save_file(found, results)
    if size > 1:
        lose_a_replica(team)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
