"""What we compute is what the released code computes: optimizer, schedule, noise, whole training steps."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

from pipeline.config import Config
from pipeline.optim import Lars, WarmupCosine, parameter_groups
from pipeline.replicas import SOLO, ReplicaGroup
from pipeline.serial import serial_step
from pipeline.stage.noise import add_noise
from pipeline.stage.stage import Stage
from pipeline.validation.loading import parse_config
from tests.marks import slow
from tests.pipeline.golden import Golden, folders
from tests.pipeline.replicas.replica_team import Replicas

CLOSE = {"rtol": 1e-9, "atol": 1e-12}


@pytest.fixture(scope="module", params=folders(), ids=lambda folder: folder.parent.name)
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden(request.param)


def test_lars(golden: Golden) -> None:
    settings = golden.settings["lars"]
    count = sum(bool(re.fullmatch(r"lars_p\d+_init", name)) for name in golden.arrays.files)
    parameters = [torch.nn.Parameter(golden.tensor(f"lars_p{i}_init")) for i in range(count)]
    module = torch.nn.ParameterList(parameters)
    groups = parameter_groups(module, "dimension", settings["weight_decay"], lars_weight=1.0)
    lars = Lars(groups, lr=0.0, momentum=settings["momentum"], eta=settings["eta"])
    assert count >= 4
    for step, lr in enumerate(settings["lrs"]):
        for group in lars.param_groups:
            group["lr"] = lr
        for i, parameter in enumerate(parameters):
            parameter.grad = golden.tensor(f"lars_g{i}_step{step}")
        lars.step()
        for i, parameter in enumerate(parameters):
            torch.testing.assert_close(parameter.detach(), golden.tensor(f"lars_p{i}_step{step}"), **CLOSE)


def test_schedule(golden: Golden) -> None:
    s = golden.settings["schedule"]
    schedule = WarmupCosine(
        s["base_lr"] * s["batch_size"] / 256,
        s["warmup_epochs"] * s["steps_per_epoch"],
        s["epochs"] * s["steps_per_epoch"],
        s["final_ratio"],
    )
    expected = golden.tensor("lr_schedule")
    assert len(expected) == s["epochs"] * s["steps_per_epoch"]
    actual = torch.tensor([schedule(step) for step in range(len(expected))], dtype=torch.float64)
    torch.testing.assert_close(actual, expected, **CLOSE)


@pytest.mark.parametrize(("ours", "theirs"), [("all", "noise_all"), ("hw", "noise_hw"), ("c_legacy", "noise_c")])
def test_noise(golden: Golden, ours: str, theirs: str) -> None:
    noised = add_noise(golden.tensor("noise_x"), golden.tensor("noise_eps"), ours, golden.settings["noise"]["std"])
    torch.testing.assert_close(noised, golden.tensor(theirs), **CLOSE)


def released_name(stage: int, name: str) -> str:
    """The released code's name of a parameter of ours."""
    if name.startswith("block."):
        return name.replace("block.", "backbone.", 1)
    if name.startswith("head.expansion."):
        return name.replace("head.expansion", f"backbone.pool_conv_block_{stage}", 1)
    return name.replace("head.projector", f"projector_list.{stage - 1}", 1)


def trajectory_config(settings: dict) -> Config:
    kind = settings["noise_type"]
    return parse_config(
        {
            "model": {"backbone": "resnet50"},
            "head": {"width": 2048, "filter": settings["filter_size"], "projector": settings["projector"]},
            "objective": {"lambd": settings["lambd"], "scale": settings["scale"]},
            "noise": {"kind": "c_legacy" if kind == "c" else kind, "std": settings["noise_std"] or 0.0},
            "optimizer": {key: settings[key] for key in ("weight_decay", "momentum", "eta")},
            "data": {"batch_size": settings["batch"], "image_size": settings["image"]},
        }
    )


def golden_stages(golden: Golden, settings: dict, team: ReplicaGroup = SOLO) -> list[Stage]:
    config = trajectory_config(settings)
    stages = [Stage(config, index, 1, dtype=torch.float64, team=team) for index in range(1, 5)]
    for stage in stages:
        with torch.no_grad():
            for name, parameter in stage.named_parameters():
                parameter.copy_(golden.parameter(released_name(stage.index, name), tuple(parameter.shape)))
        stage.schedule = settings["lrs"].__getitem__
        stage.noise.draw = lambda x, step, block, view: golden.draw(
            f"noise/step{step}/view{view}/block{block}", tuple(x.shape)
        )
    return stages


def statistics(stages: list[Stage], names: list[str]) -> tuple[Tensor, Tensor]:
    """2-norm and sum of the named tensors."""
    state = {released_name(stage.index, name): t for stage in stages for name, t in stage.state_dict().items()}
    norms = torch.stack([state[name].norm() for name in names])
    return norms, torch.stack([state[name].sum() for name in names])


def trajectory_of(golden: Golden, trajectory: str, team: ReplicaGroup = SOLO) -> tuple[Tensor, Tensor, Tensor]:
    """Losses `[steps, 4]`, and norms and sums of everything after the last step; the batch is the team's."""
    settings = golden.settings[f"trajectory_{trajectory}"]
    stages = golden_stages(golden, settings, team)
    shape = (settings["batch"], 3, settings["image"], settings["image"])
    level = settings["noise_std"] or 0.0
    losses = []
    for step in range(settings["steps"]):
        views = torch.stack([team.rows(golden.draw(f"input/step{step}/view{view}", shape)) for view in (1, 2)])
        losses.append([report.loss for report in serial_step(stages, views, step, [level] * 4)])
    return torch.tensor(losses, dtype=torch.float64), *statistics(stages, settings["names"])


def assert_as_released(golden: Golden, trajectory: str, losses: Tensor, norms: Tensor, sums: Tensor) -> None:
    key = f"traj_{trajectory}"
    torch.testing.assert_close(losses, golden.tensor(f"{key}_losses"), **CLOSE)
    torch.testing.assert_close(norms, golden.tensor(f"{key}_norms"), **CLOSE)
    # A sum over hundreds of thousands of signed numbers cancels: measure its error against the norm.
    error = (sums - golden.tensor(f"{key}_sums")).abs() / norms
    assert error.max() < 1e-9


@pytest.mark.long
@pytest.mark.parametrize("trajectory", [slow("plain"), "noise"])
def test_three_training_steps_of_resnet50(golden: Golden, trajectory: str) -> None:
    assert_as_released(golden, trajectory, *trajectory_of(golden, trajectory))


@pytest.mark.slow
def test_two_replicas_of_every_stage_take_the_same_steps(golden: Golden, replicas: Replicas) -> None:
    for found in replicas.run(2, "golden", folder=str(golden.folder), trajectory="noise"):
        assert_as_released(golden, "noise", found["losses"], found["norms"], found["sums"])
