"""Every setting of a stage reaches what it sets: learning rates, clipping, noise, target, layout, keyed dropout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.serial import build_stages
from pipeline.stage.stage import Stage
from pipeline.stage.state import stage_tensors
from tests.pipeline.small import STEPS_PER_EPOCH, same, small_config, state, train, views


def one_stage(**sections: Any) -> Stage:
    """In float64, so that rounding stays far below every tolerance, on any processor."""
    return Stage(small_config(model={"cuts": []}, **sections), 1, STEPS_PER_EPOCH, dtype=torch.float64)


def images(seed: int) -> Tensor:
    """Two views, `[2, 8, 3, 16, 16]`."""
    return views(seed).movedim(-1, 2).double() / 255 - 0.5


def moved_by(stage: Stage, step: int = 6) -> dict[str, Tensor]:
    """How far one update at `step` moves every parameter."""
    before = {name: p.detach().clone() for name, p in stage.named_parameters()}
    stage(images(0), step, 0.0)
    stage.update(step)
    return {name: (p - before[name]).detach() for name, p in stage.named_parameters()}


def test_biases_and_norms_have_their_own_learning_rate() -> None:
    common, own = moved_by(one_stage()), moved_by(one_stage(optimizer={"bias_lr": 0.8}))
    norm, weight = "block.bn1.weight", "block.conv1.weight"
    torch.testing.assert_close(own[norm], 0.1 * common[norm], rtol=1e-9, atol=1e-12)
    assert torch.equal(own[weight], common[weight])


def test_gradients_are_clipped_to_the_norm_of_the_block() -> None:
    sgd = {"kind": "sgd", "lr": 1.0, "scale_lr": False, "momentum": 0.0, "weight_decay": 0.0, "warmup_epochs": 0}
    free, clipped = (
        torch.cat([d.flatten() for d in moved_by(one_stage(optimizer={**sgd, **clip}), step=0).values()])
        for clip in ({}, {"clip_norm": 0.01})
    )
    assert free.norm() > 0.02
    torch.testing.assert_close(clipped.norm().item(), 0.01, rtol=1e-3, atol=0)
    torch.testing.assert_close(clipped / clipped.norm(), free / free.norm(), rtol=1e-9, atol=1e-9)


def outputs(level: float, seen: list[tuple[int, ...]], **noise: Any) -> tuple[Tensor, Stage]:
    """What a stage sends onward, with noise that is one everywhere; `seen` collects the shapes that were drawn for."""
    stage = one_stage(noise={"kind": "all", **noise})

    def draw(x: Tensor, step: int, index: int, view: int) -> Tensor:
        seen.append(tuple(x.shape))
        return torch.ones_like(x)

    stage.noise.draw = draw
    return stage(images(0), 0, level), stage


def test_noise_is_at_the_output_or_at_the_input() -> None:
    shapes: dict[str, list[tuple[int, ...]]] = {"output": [], "input": []}
    silent, _ = outputs(0.0, [])
    at_output, _ = outputs(0.5, shapes["output"], placement="output")
    at_input, stage = outputs(0.5, shapes["input"], placement="input")
    assert shapes == {"output": [(8, 64, 2, 2)] * 2, "input": [(8, 3, 16, 16)] * 2}
    for view in (0, 1):
        torch.testing.assert_close(at_output[view], silent[view] + 0.5 * silent[view].std())
    image = stage.inputs.prepared(images(0)[0])
    noised = image + 0.5 * image.std()
    torch.testing.assert_close(at_input[0], one_stage().block(noised))


def test_noise_may_be_absolute() -> None:
    silent, _ = outputs(0.0, [])
    absolute, _ = outputs(0.5, [], relative=False)
    torch.testing.assert_close(absolute, silent + 0.5)


@pytest.mark.parametrize("when", ["before_forward", "after_update"])
def test_the_target_moves_when_it_is_told_to(when: str) -> None:
    loss = {
        "kind": "byol",
        "predictor": [16],
        "momentum": 0.5,
        "momentum_schedule": "constant",
        "momentum_update": when,
    }
    stage = one_stage(objective=loss, optimizer={"warmup_epochs": 0})
    weight, target = stage.block.conv1.weight, stage.target.block.conv1.weight
    start = weight.detach().clone()
    stage(images(0), 0, 0.0)
    stage.update(0)
    first = weight.detach().clone()
    assert not torch.equal(first, start)
    expected = start if when == "before_forward" else (start + first) / 2
    torch.testing.assert_close(target, expected)
    stage(images(1), 1, 0.0)
    stage.update(1)
    expected = (start + first) / 2 if when == "before_forward" else (expected + weight.detach()) / 2
    torch.testing.assert_close(target, expected)


def test_the_target_is_in_the_snapshot_and_no_gradient_reaches_it() -> None:
    stage = one_stage(objective={"kind": "byol", "predictor": [16]})
    moved_by(stage)
    names = set(stage_tensors(stage))
    assert {"target.block.conv1.weight", "target.head.projector.0.weight", "target.block.bn1.running_mean"} <= names
    assert not any(name.startswith("optimizer.") and ".target." in name for name in names)
    assert "optimizer.momentum.objective.predictor.0.weight" in names


def test_channels_last_is_the_layout_of_weights_and_activations() -> None:
    stage = one_stage(precision={"channels_last": True})
    seen = []
    stage.block.conv1.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    stage(images(0), 0, 0.0)
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in seen)
    assert stage.block.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert stage(images(0), 0, 0.0).is_contiguous()


NETWORK = """
from torch import nn

def dropping():
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5),
                         nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Dropout(0.5))
"""


def test_dropout_is_keyed_by_the_step_and_not_by_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "network_with_dropout.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    config = small_config(model={"backbone": "network_with_dropout:dropping", "output": "6", "cuts": ["3"]})
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        stages = build_stages(config, STEPS_PER_EPOCH)
        train(config, 3, stages)
        states.append([state(stage) for stage in stages])
    assert all(same(first, second) for first, second in zip(*states, strict=True))
    again = stages[0](views(0), 0, 0.0), stages[0](views(0), 1, 0.0)
    assert not torch.equal(*again), "another step, another draw"


@pytest.mark.parametrize(("projector", "expected"), [([24, 16], [24, 16]), ("none", [64])])
def test_byols_predictor_has_the_layers_of_the_projector_unless_told_otherwise(
    projector: Any, expected: list[int]
) -> None:
    stage = one_stage(objective={"kind": "byol"}, head={"kind": "gsp", "projector": projector})
    layers = [m.out_features for m in stage.objective.predictor if isinstance(m, torch.nn.Linear)]
    assert layers == expected
    moved_by(stage)


def test_a_stage_without_any_buffer_trains() -> None:
    stage = Stage(
        small_config(
            model={"backbone": "vit_b_16", "patch_size": 8, "hidden_dim": 8, "num_layers": 1, "num_heads": 1},
            head={"kind": "gsp", "projector": [16]},
        ),
        1,
        STEPS_PER_EPOCH,
        dtype=torch.float64,
    )
    assert not list(stage.buffers()), "no batch norm anywhere"
    weight = "block.encoder.layers.encoder_layer_0.mlp.0.weight"
    assert moved_by(stage)[weight].any()
    stage(torch.full_like(images(0), float("nan")), 7, 0.0)
    assert stage.update(7).skipped
