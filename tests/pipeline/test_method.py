"""Properties of the method's parts beyond the golden numbers."""

from __future__ import annotations

import pytest
import torch

from pipeline.config import Head, Objective
from pipeline.config_loading import parse_config
from pipeline.heads import ExpansionHead
from pipeline.noise import activation_scale, add_noise, standard_normal
from pipeline.objectives import build_objective
from pipeline.objectives.barlow_twins import barlow_twins_loss
from pipeline.optim import Lars, WarmupCosine
from pipeline.stage import Stage

DOUBLE = {"dtype": torch.float64}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_barlow_twins_gradient_by_finite_differences() -> None:
    z1, z2 = (torch.randn(6, 4, generator=generator(i), **DOUBLE).requires_grad_() for i in (1, 2))
    assert torch.autograd.gradcheck(lambda a, b: barlow_twins_loss(a, b, 0.01, 0.5)[0], (z1, z2))


def test_barlow_twins_is_blind_to_shift_and_scale_and_zero_when_perfect() -> None:
    z = torch.linalg.qr(torch.randn(64, 4, generator=generator(), **DOUBLE) - 0.0)[0]
    z = torch.linalg.qr(z - z.mean(dim=0))[0] * 8
    loss, terms = barlow_twins_loss(z, 3 * z + 5, 0.005, 1.0)
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert set(terms) == {"on_diagonal", "off_diagonal"}
    assert barlow_twins_loss(z, -z, 0.005, 1.0)[0].item() == pytest.approx(16, rel=1e-3)


def test_the_objective_takes_its_settings_from_the_configuration() -> None:
    z1, z2 = (torch.randn(8, 5, generator=generator(i)) for i in (1, 2))
    objective = build_objective(Objective(lambd=0.3, scale=2.0))
    torch.testing.assert_close(objective(z1, z2)[0], barlow_twins_loss(z1, z2, 0.3, 2.0)[0])


def test_noise_is_keyed_by_seed_step_stage_and_view() -> None:
    x = torch.zeros(2, 3, 4, 4)
    draws = [standard_normal(x, *key) for key in [(0, 0, 1, 1), (1, 0, 1, 1), (0, 1, 1, 1), (0, 0, 2, 1), (0, 0, 1, 2)]]
    assert torch.equal(draws[0], standard_normal(x, 0, 0, 1, 1))
    assert all(not torch.equal(draws[0], other) for other in draws[1:])
    big = standard_normal(torch.zeros(100_000), 0, 0, 1, 1)
    assert big.mean().abs() < 0.02
    assert abs(big.std() - 1) < 0.02


@pytest.mark.parametrize(
    ("kind", "shape"), [("all", ()), ("hw", (4, 3, 1, 1)), ("c", (4, 1, 5, 6)), ("c_legacy", (4, 3, 1, 6))]
)
def test_noise_scale_has_the_shape_of_its_kind(kind: str, shape: tuple[int, ...]) -> None:
    x = torch.randn(4, 3, 5, 6, generator=generator())
    scale = activation_scale(x, kind)
    assert scale.shape == shape
    draw = torch.ones_like(x)
    torch.testing.assert_close(add_noise(x, draw, kind, 0.25) - x, (0.25 * scale).expand_as(x))


def test_the_gradient_flows_through_the_scale_of_the_noise() -> None:
    x = torch.randn(2, 3, 4, 4, generator=generator(), **DOUBLE).requires_grad_()
    draw = torch.randn(2, 3, 4, 4, generator=generator(1), **DOUBLE)
    assert torch.autograd.gradcheck(lambda value: add_noise(value, draw, "all", 0.25), (x,))
    (gradient,) = torch.autograd.grad(add_noise(x, draw, "all", 0.25).sum(), x)
    assert not torch.allclose(gradient, torch.ones_like(gradient))


def test_lars_leaves_vectors_to_momentum_sgd() -> None:
    matrix, vector = (torch.nn.Parameter(torch.ones(shape, **DOUBLE)) for shape in [(2, 2), (2,)])
    lars = Lars([matrix, vector], lr=1.0, weight_decay=0.5, momentum=0.0, eta=0.01)
    matrix.grad, vector.grad = torch.full((2, 2), 1.0, **DOUBLE), torch.full((2,), 1.0, **DOUBLE)
    lars.step()
    torch.testing.assert_close(vector.detach(), torch.zeros(2, **DOUBLE))
    torch.testing.assert_close(matrix.detach(), torch.full((2, 2), 0.99, **DOUBLE))


def test_schedule_warms_up_and_ends_where_it_should() -> None:
    schedule = WarmupCosine(2.0, 10, 110, 0.001)
    assert [schedule(0), schedule(5), schedule(10)] == [0.0, 1.0, 2.0]
    assert schedule(60) == pytest.approx(1.001)
    assert schedule(110) == pytest.approx(0.002)
    assert WarmupCosine(2.0, 0, 100, 0.0)(0) == 2.0


def test_projectors_of_all_stages_start_equal_and_expansions_do_not() -> None:
    config = Head(width=16, projector=(8, 8))
    first, second = (ExpansionHead(config, 4, seed=0, stage=stage).state_dict() for stage in (1, 2))
    same = {
        name: torch.equal(first[name], second[name])
        for name in first
        if name.endswith(".weight") and first[name].dim() > 1
    }
    assert same == {name: name.startswith("projector") for name in same}
    assert not any(name.endswith("0.bias") for name in first)


def tiny(**overrides: object) -> dict[str, object]:
    return {
        "model": {"backbone": "resnet18", "width": 4, "stem": "strided"},
        "head": {"width": 8, "projector": [8, 8]},
        "data": {"batch_size": 4, "image_size": 16},
        **overrides,
    }


def views(seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (2, 4, 3, 16, 16), dtype=torch.uint8, generator=generator(seed))


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
        stage(views().double(), step=0, noise_level=0.0)
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
    snapshot = stage.snapshot()
    assert "optimizer.momentum.block.conv1.weight" in snapshot
    assert "block.bn1.running_mean" in snapshot


def test_noise_is_off_in_evaluation() -> None:
    stage = Stage(parse_config(tiny()), 1, 1).eval()
    with torch.inference_mode():
        assert torch.equal(stage.trunk(views()[0]), stage.trunk(views()[0]))
