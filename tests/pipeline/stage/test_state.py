"""A stage that is restored goes on as the one that was saved: every optimizer, BYOL's target, the fp16 scaler."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pipeline.precision import LossScaler
from pipeline.stage.stage import Stage
from pipeline.stage.state import restore_stage, stage_counters, stage_tensors
from tests.marks import named
from tests.pipeline.small import STEPS_PER_EPOCH, same, small_config, state, views

SETTINGS: dict[str, dict[str, Any]] = {
    "lars": {},
    "lars_lr_in_momentum": {"optimizer": {"kind": "lars_lr_in_momentum", "warmup_epochs": 1}},
    "lars_clipped": {"optimizer": {"kind": "lars_clipped", "warmup_epochs": 1}},
    "sgd": {"optimizer": {"kind": "sgd", "nesterov": True, "warmup_epochs": 1}},
    "adamw": {"optimizer": {"kind": "adamw", "warmup_epochs": 1}},
    "byol": {"objective": {"kind": "byol", "predictor": [16]}},
    "fp16": {"precision": {"dtype": "fp16"}, "model": {"cuts": [], "width": 4}},  # slow on a CPU
}


def steps(stage: Stage, first: int, last: int) -> None:
    for step in range(first, last):
        stage(views(step), step, 0.25)
        stage.update(step)


@pytest.mark.parametrize("settings", named(SETTINGS, long=["fp16"]))
def test_a_restored_stage_goes_on_to_the_bit(settings: dict[str, Any]) -> None:
    config = small_config(**{"model": {"cuts": []}, "noise": {"kind": "all"}, **settings})
    stage = Stage(config, 1, STEPS_PER_EPOCH)
    steps(stage, 0, 3)
    tensors = {name: tensor.clone() for name, tensor in stage_tensors(stage).items()}
    counters = stage_counters(stage)
    steps(stage, 3, 6)
    other = Stage(config, 1, STEPS_PER_EPOCH)
    restore_stage(other, tensors, counters)
    assert same(state(other), tensors)
    steps(other, 3, 6)
    assert same(state(other), state(stage))
    assert stage_counters(other) == stage_counters(stage)


def test_the_scale_of_an_fp16_loss_and_the_skipped_steps_are_part_of_the_state() -> None:
    config = small_config(model={"cuts": []}, precision={"dtype": "fp16"})
    stage, other = (Stage(config, 1, STEPS_PER_EPOCH) for _ in range(2))
    stage.scaler = LossScaler(torch.device("cpu"), [stage.optimizer], initial_scale=8.0)
    stage.skips.in_a_row = 4
    restore_stage(other, stage_tensors(stage), stage_counters(stage))
    assert other.scaler.scaler.get_scale() == 8.0
    assert other.skips.in_a_row == 4


def test_the_state_of_another_network_is_refused() -> None:
    stage = Stage(small_config(model={"cuts": []}), 1, STEPS_PER_EPOCH)
    other = Stage(small_config(model={"cuts": [], "width": 16}), 1, STEPS_PER_EPOCH)
    with pytest.raises(RuntimeError):
        restore_stage(other, stage_tensors(stage), stage_counters(stage))
    foreign = {**stage_tensors(stage), "optimizer.momentum.block.conv9.weight": torch.zeros(1)}
    with pytest.raises(RuntimeError, match=r"no parameter 'block\.conv9\.weight'"):
        restore_stage(stage, foreign, stage_counters(stage))
