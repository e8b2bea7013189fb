"""Noise on images and tokens: its size, what it is relative to, its gradient, its draws, its schedule."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pipeline.config import NoiseConfig
from pipeline.serial import build_stages
from pipeline.stage.noise import activation_scale, add_noise, noise_level, standard_normal
from tests.pipeline.small import STEPS_PER_EPOCH, small_config, views

IMAGES, TOKENS = (4, 3, 5, 6), (4, 7, 5)
KINDS = [(IMAGES, kind) for kind in ("all", "hw", "c", "c_legacy")] + [(TOKENS, kind) for kind in ("all", "hw", "c")]


def normal(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("shape", "kind", "expected"),
    [
        (IMAGES, "all", ()),
        (IMAGES, "hw", (4, 3, 1, 1)),
        (IMAGES, "c", (4, 1, 5, 6)),
        (IMAGES, "c_legacy", (4, 3, 1, 6)),
        (TOKENS, "all", ()),
        (TOKENS, "hw", (4, 1, 5)),
        (TOKENS, "c", (4, 7, 1)),
    ],
)
def test_the_scale_has_the_shape_of_its_kind(shape: tuple[int, ...], kind: str, expected: tuple[int, ...]) -> None:
    x = normal(shape)
    scale = activation_scale(x, kind)
    assert scale.shape == expected
    torch.testing.assert_close(add_noise(x, torch.ones_like(x), kind, 0.25) - x, (0.25 * scale).expand_as(x))


def test_the_scale_is_the_unbiased_deviation_of_the_numbers_it_is_taken_over() -> None:
    x, tokens = normal(IMAGES), normal(TOKENS)

    def deviation(values: Tensor) -> float:
        return ((values - values.mean()).square().sum() / (values.numel() - 1)).sqrt().item()

    assert activation_scale(x, "all").item() == pytest.approx(deviation(x))
    assert activation_scale(x, "hw")[2, 1, 0, 0].item() == pytest.approx(deviation(x[2, 1]))
    assert activation_scale(x, "c")[2, 0, 3, 4].item() == pytest.approx(deviation(x[2, :, 3, 4]))
    assert activation_scale(x, "c_legacy")[2, 1, 0, 4].item() == pytest.approx(deviation(x[2, 1, :, 4]))
    assert activation_scale(tokens, "hw")[2, 0, 3].item() == pytest.approx(deviation(tokens[2, :, 3]))
    assert activation_scale(tokens, "c")[2, 6, 0].item() == pytest.approx(deviation(tokens[2, 6]))


@pytest.mark.parametrize(("shape", "kind"), KINDS)
@pytest.mark.parametrize("relative", [True, False])
def test_the_gradient_by_finite_differences(shape: tuple[int, ...], kind: str, relative: bool) -> None:
    x, draw = normal(shape).requires_grad_(), normal(shape, seed=1)
    assert torch.autograd.gradcheck(lambda value: add_noise(value, draw, kind, 0.25, relative), (x,))


@pytest.mark.parametrize(("shape", "kind"), KINDS)
def test_the_gradient_flows_through_relative_noise_and_past_absolute_noise(shape: tuple[int, ...], kind: str) -> None:
    x, draw = normal(shape).requires_grad_(), normal(shape, seed=1)
    (through,) = torch.autograd.grad(add_noise(x, draw, kind, 0.25).sum(), x)
    (past,) = torch.autograd.grad(add_noise(x, draw, kind, 0.25, relative=False).sum(), x)
    assert not torch.allclose(through, torch.ones_like(through))
    assert torch.equal(past, torch.ones_like(past))


def test_relative_noise_grows_with_the_activations_and_absolute_noise_does_not() -> None:
    x = 3 * torch.randn(8, 16, 16, 16, generator=torch.Generator().manual_seed(0)) + 5
    draw = standard_normal(x, 0, 0, 1, 1)
    assert (add_noise(x, draw, "all", 0.25) - x).std().item() == pytest.approx(0.75, rel=0.02)
    assert (add_noise(x, draw, "all", 0.25, relative=False) - x).std().item() == pytest.approx(0.25, rel=0.02)
    assert torch.equal(add_noise(x, draw, "hw", 0.25, relative=False), x + 0.25 * draw)


def test_a_quiet_sample_gets_little_noise_of_kind_hw() -> None:
    x = torch.randn(2, 8, 16, 16, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.1, 10]).view(2, 1, 1, 1)
    noise = add_noise(x, standard_normal(x, 0, 0, 1, 1), "hw", 0.5) - x
    assert noise[0].std().item() == pytest.approx(0.05, rel=0.05)
    assert noise[1].std().item() == pytest.approx(5, rel=0.05)


def test_a_draw_is_keyed_by_seed_step_stage_and_view() -> None:
    x = torch.zeros(2, 3, 4, 4)
    draws = [standard_normal(x, *key) for key in [(0, 0, 1, 1), (1, 0, 1, 1), (0, 1, 1, 1), (0, 0, 2, 1), (0, 0, 1, 2)]]
    assert torch.equal(draws[0], standard_normal(x, 0, 0, 1, 1))
    assert all(not torch.equal(draws[0], other) for other in draws[1:])
    assert standard_normal(x.double(), 0, 0, 1, 1).dtype == torch.float64


def test_a_draw_is_standard_normal() -> None:
    draw = standard_normal(torch.zeros(100_000), 0, 0, 1, 1)
    assert draw.mean().abs() < 0.02
    assert abs(draw.std() - 1) < 0.02
    assert draw.pow(4).mean().item() == pytest.approx(3, rel=0.05)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 0.5, 0.5, 0.5, 0.5]),
        ("linear", [0.5, 0.4, 0.3, 0.2, 0.1]),
        ("cosine", [0.5, 0.3 + 0.1 * 2**0.5, 0.3, 0.3 - 0.1 * 2**0.5, 0.1]),
    ],
)
def test_the_level_over_five_steps(schedule: str, expected: list[float]) -> None:
    config = NoiseConfig(std=0.5, final_std=0.1, schedule=schedule)
    levels = [noise_level(config, step, 5) for step in range(5)]
    assert levels == pytest.approx(expected)
    assert [levels[0], levels[-1]] == [expected[0], expected[-1]], "the ends are exact"


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_the_level_without_noise_and_of_a_single_step(schedule: str) -> None:
    assert noise_level(NoiseConfig(kind="none", schedule=schedule, final_std=1.0), 3, 5) == 0.0
    assert noise_level(NoiseConfig(std=0.5, schedule=schedule), 0, 1) == 0.5


@pytest.mark.parametrize(("kind", "level", "draws"), [("all", 0.0, 0), ("all", 0.25, 2), ("none", 0.0, 0)])
def test_noise_of_level_0_is_not_drawn(kind: str, level: float, draws: int) -> None:
    """A schedule that has come to its end costs nothing: two views are drawn for, or none."""
    (stage, *_) = build_stages(small_config(noise={"kind": kind}), STEPS_PER_EPOCH)
    drawn: list[tuple[int, ...]] = []

    def draw(like: Tensor, step: int, index: int, view: int) -> Tensor:
        drawn.append((step, index, view))
        return torch.zeros(like.shape)

    stage.noise.draw = draw
    stage(views(0), 5, level)
    assert drawn == [(5, 1, view) for view in range(1, draws + 1)]
