"""What a stage under DeepSpeed is made to do in tests; with the torch engine some of it is the reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.config import Config, StageConfig
from pipeline.engines.full_norms import normalise_with_full_weights
from pipeline.replicas.team import SOLO, ReplicaGroup
from pipeline.stage.report import StageReport
from pipeline.stage.stage import Stage
from pipeline.stage.state import restore_stage, stage_counters, stage_tensors
from tests.pipeline.small import STEPS_PER_EPOCH, small_config

BATCH, STEPS = 8, 5
CONTIGUOUS = torch.contiguous_format
ADAMW = {"kind": "adamw", "weight_decay": 0.1, "bias_lr": 0.0005}
CASES: dict[str, dict[str, Any]] = {
    "adamw-0": {"optimizer": ADAMW, "engine": {"zero_stage": 0}},
    "adamw-1": {"optimizer": ADAMW, "engine": {"zero_stage": 1}},
    "adamw-2": {"optimizer": ADAMW, "engine": {"zero_stage": 2}},
    "clipped-0": {"optimizer": {**ADAMW, "clip_norm": 0.05}, "engine": {"zero_stage": 0}},
    "clipped-1": {"optimizer": {**ADAMW, "clip_norm": 0.05}, "engine": {"zero_stage": 1}},
    "clipped-2": {"optimizer": {**ADAMW, "clip_norm": 0.05}, "engine": {"zero_stage": 2}},
    "sgd-0": {"optimizer": {"kind": "sgd", "weight_decay": 0.1}, "engine": {"zero_stage": 0}},
    "sgd-1": {"optimizer": {"kind": "sgd", "weight_decay": 0.1}, "engine": {"zero_stage": 1}},
    "lars-0": {"optimizer": {"kind": "lars", "eta": 0.1}, "engine": {"zero_stage": 0}},
    "bf16-0": {"optimizer": ADAMW, "engine": {"zero_stage": 0}, "precision": {"dtype": "bf16"}},
    "bf16-1": {"optimizer": ADAMW, "engine": {"zero_stage": 1}, "precision": {"dtype": "bf16"}},
    "bf16-2": {"optimizer": ADAMW, "engine": {"zero_stage": 2}, "precision": {"dtype": "bf16"}},
    "bf16-lars-0": {
        "optimizer": {"kind": "lars", "eta": 0.1},
        "engine": {"zero_stage": 0},
        "precision": {"dtype": "bf16"},
    },
}
REFUSED = {"lars-1": {"optimizer": {"kind": "lars", "eta": 0.1}, "engine": {"zero_stage": 1}}}
OFFLOADED = {
    "offload-1": {"optimizer": ADAMW, "engine": {"zero_stage": 1, "offload_optimizer": True}},
    "offload-2": {"optimizer": {**ADAMW, "clip_norm": 0.05}, "engine": {"zero_stage": 2, "offload_optimizer": True}},
}


STAGES: dict[str, dict[str, Any]] = {
    "stage-fp32": {
        "objective": {"kind": "byol", "momentum": 0.9},
        "optimizer": {**ADAMW, "lr": 0.03, "bias_lr": 0.01, "warmup_epochs": 1},
        "engine": {"kind": "deepspeed", "zero_stage": 2},
    },
    "stage-bf16": {
        "precision": {"dtype": "bf16", "channels_last": True},
        "optimizer": {**ADAMW, "lr": 0.03, "bias_lr": 0.01, "warmup_epochs": 1},
        "engine": {"kind": "deepspeed", "zero_stage": 1},
    },
    "stage-lars-bf16": {
        "precision": {"dtype": "bf16"},
        "optimizer": {"lr": 1.0, "clip_norm": 1.0, "warmup_epochs": 1},
        "engine": {"kind": "deepspeed", "zero_stage": 0},
    },
}


def stage_config(case: Mapping[str, Any]) -> StageConfig:
    engine = {"kind": "deepspeed", **case["engine"]}
    return Config.model_validate({**case, "engine": engine}).stage(1)


def make_module(normalised: bool = False) -> nn.ModuleDict:
    """Two groups of parameters that no number of replicas divides evenly; batch norm only where asked for."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        block = nn.Sequential(
            nn.Conv2d(3, 7, 3),
            nn.BatchNorm2d(7) if normalised else nn.GroupNorm(1, 7),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        return nn.ModuleDict({"block": block, "head": nn.Linear(7, 5)})


def loss_of(module: nn.ModuleDict, step: int, rank: int, size: int, half: bool = False) -> Tensor:
    """Of a replica's share of the batch of `step`; the mean over all shares is the loss of the batch."""
    generator = torch.Generator().manual_seed(step)
    images = torch.randn(BATCH, 3, 6, 6, generator=generator).chunk(size)[rank]
    targets = torch.randn(BATCH, 5, generator=generator).chunk(size)[rank]
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        z = module["head"](module["block"](images))
    return (z.float() - targets).square().mean()


def keep_masters(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, nn.Parameter]:
    """What bf16 under DeepSpeed is, for one process: parameters in bf16, their float32 masters moved by torch."""
    masters = {name: nn.Parameter(p.detach().clone(memory_format=CONTIGUOUS)) for name, p in module.named_parameters()}
    of = {p: masters[name] for name, p in module.named_parameters()}
    for group in optimizer.param_groups:
        group["params"] = [of[p] for p in group["params"]]

    def hand_over(p: Tensor) -> None:
        of[p].grad, p.grad = p.grad.float(), None

    def take_over(*_: object) -> None:
        for p, master in of.items():
            p.data.copy_(master)

    for p, master in of.items():
        p.data = master.detach().bfloat16()
        p.register_post_accumulate_grad_hook(hand_over)
    optimizer.register_step_post_hook(take_over)
    normalise_with_full_weights(module)
    return masters


def set_rate(optimizer: torch.optim.Optimizer, step: int) -> None:
    for group in optimizer.param_groups:
        group["lr"] = 0.02 / (1 + step) * group["lr_ratio"]


def whole_stage(sections: Mapping[str, Any], team: ReplicaGroup) -> dict[str, Tensor]:
    """The last block of a network: losses, norms of the second step, state, and whether it can be resumed.

    A norm that was not measured is -1. The learning rate begins with 0, so the second step still has the first weights.
    """
    config = small_config(**sections, metrics={"norms_every": 1})
    stage = Stage(config, 4, STEPS_PER_EPOCH, team=team)
    losses, norms, saved, counters = [], [-1.0, -1.0], {}, {}
    for step in range(4):
        if step == 3:
            saved = {name: value.clone() for name, value in stage_tensors(stage).items()}
            counters = stage_counters(stage)
        report = one_step(stage, step, team)
        losses.append(report.loss)
        if step == 1:
            norms = [-1.0 if norm is None else norm for norm in (report.gradient_norm, report.update_norm)]
    resumed_stage = Stage(config, 4, STEPS_PER_EPOCH, team=team)
    restore_stage(resumed_stage, saved, counters)
    again, wanted = one_step(resumed_stage, 3, team).loss, stage_tensors(stage)
    found = stage_tensors(resumed_stage)
    same = again == losses[-1] and all(torch.equal(found[name], value) for name, value in wanted.items())
    said = {"losses": torch.tensor(losses), "live.norms": torch.tensor(norms)}
    return {**wanted, **said, "same": torch.tensor(same and set(found) == set(wanted))}


def stage_with_masters(sections: Mapping[str, Any]) -> dict[str, Tensor]:
    """The same block in bf16, in one process without DeepSpeed: losses and state."""
    stage = Stage(small_config(**{**sections, "engine": {"kind": "torch"}}), 4, STEPS_PER_EPOCH)
    masters = keep_masters(stage, stage.optimizer)
    losses = [one_step(stage, step, SOLO).loss for step in range(4)]
    found = {name: buffer for name, buffer in stage.named_buffers() if name in stage.state_dict()}
    return {**found, **state_of_masters(masters, stage.optimizer), "losses": torch.tensor(losses)}


def state_of_masters(masters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """As a snapshot has it: the masters, and what the optimizer keeps of them."""
    kept = {(key, name): value for name, p in masters.items() for key, value in optimizer.state[p].items()}
    return {name: p.detach() for name, p in masters.items()} | {
        f"optimizer.{key}.{name}": value for (key, name), value in kept.items()
    }


def one_step(stage: Stage, step: int, team: ReplicaGroup) -> StageReport:
    generator = torch.Generator().manual_seed(step)
    whole = torch.randn(2, BATCH, 32, 4, 4, generator=generator)
    stage(torch.stack([team.rows(view) for view in whole]), step, 0.0)
    report = stage.update(step)
    assert report.loss is not None
    assert not report.skipped
    return report
