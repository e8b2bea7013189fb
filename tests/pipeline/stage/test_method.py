"""Properties of the method's parts beyond the golden numbers."""

from __future__ import annotations

import torch

from pipeline.stage.stage import Stage
from pipeline.stage.state import stage_tensors
from pipeline.validation.loading import parse_config


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tiny(**overrides: object) -> dict[str, object]:
    return {
        "model": {"backbone": "resnet18", "width": 4, "stem": "strided"},
        "head": {"width": 8, "projector": [8, 8]},
        "data": {"batch_size": 4, "image_size": 16},
        **overrides,
    }


def views(seed: int = 0) -> torch.Tensor:
    images = torch.randint(0, 256, (2, 4, 3, 16, 16), dtype=torch.uint8, generator=generator(seed))
    return images.movedim(2, -1).contiguous()


def test_no_gradient_of_one_stage_reaches_another() -> None:
    config = parse_config(tiny())
    stages = [Stage(config, index, 1) for index in (1, 2, 3, 4)]
    activations = views()
    for stage in stages:
        activations = stage(activations, step=0, noise_level=0.25)
        assert not activations.requires_grad
        assert activations.grad_fn is None
    stages[2].update(step=0)
    graded = {stage.index: any(p.grad is not None for p in stage.parameters()) for stage in stages}
    assert graded == {1: False, 2: False, 3: True, 4: False}


def test_the_reference_world_size_divides_the_gradient_and_not_the_loss() -> None:
    losses, gradients = [], []
    for world_size in (1, 16):
        stage = Stage(parse_config(tiny(objective={"reference_world_size": world_size})), 1, 1, dtype=torch.float64)
        stage(views().permute(0, 1, 4, 2, 3).double(), step=0, noise_level=0.0)
        losses.append(stage.update(step=0).loss)
        gradients.append(stage.head.projector[0].weight.grad)
    assert losses[0] == losses[1]
    torch.testing.assert_close(gradients[0], 16 * gradients[1])


def test_a_stage_learns_and_its_snapshot_holds_the_momentum() -> None:
    config = parse_config(tiny(optimizer={"lr": 20.0, "warmup_epochs": 0}, noise={"kind": "none"}))
    stage = Stage(config, 1, steps_per_epoch=1)
    losses = []
    for step in range(30):
        stage(views(), step, noise_level=0.0)
        losses.append(stage.update(step).loss)
    assert losses[-1] < 0.8 * losses[0]
    snapshot = stage_tensors(stage)
    assert "optimizer.momentum.block.conv1.weight" in snapshot
    assert "block.bn1.running_mean" in snapshot


def test_noise_is_off_in_evaluation() -> None:
    stage = Stage(parse_config(tiny()), 1, 1).eval()
    with torch.inference_mode():
        assert torch.equal(stage.trunk(views()[0]), stage.trunk(views()[0]))
