"""The target network: what it starts from, how it moves, what it leaves alone."""

from __future__ import annotations

from math import cos, pi

import pytest
import torch
from torch import Tensor, nn

from pipeline.backbones.heads import build_head
from pipeline.config import heads
from pipeline.config.objectives import BYOLConfig
from pipeline.stage.target_network import Target, target_momentum


def online() -> tuple[nn.Module, nn.Module]:
    """A block with batch norm, and its head."""
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    return block, build_head(heads.ExpansionConfig(width=6, projector=(8, 5)), channels=4, seed=0, stage=1)


def images(seed: int = 1) -> list[Tensor]:
    source = torch.Generator().manual_seed(seed)
    return [torch.randn(4, 3, 6, 6, generator=source) * 3 + 1 for _ in range(2)]


def numbers(*modules: nn.Module, buffers: bool = False) -> Tensor:
    tensors = [t for module in modules for t in (module.buffers() if buffers else module.parameters())]
    return torch.cat([tensor.detach().double().flatten() for tensor in tensors])


def moved(block: nn.Module, head: nn.Module) -> None:
    """As an optimizer would: every parameter is another."""
    with torch.no_grad():
        for parameter in (*block.parameters(), *head.parameters()):
            parameter.add_(1.0)


def test_it_starts_as_the_online_network_and_says_what_that_says() -> None:
    block, head = online()
    target = Target(block, head)
    answers = target(images())
    assert len(answers) == 2
    for answer, view in zip(answers, images(), strict=True):
        assert answer.shape == (4, 5)
        assert torch.equal(answer, head(block(view)))


def test_it_is_a_copy_and_the_online_network_moves_without_it() -> None:
    block, head = online()
    target = Target(block, head)
    before = numbers(target)
    moved(block, head)
    assert torch.equal(numbers(target), before)
    assert not torch.equal(numbers(block, head), before)


def test_no_gradient_reaches_it_or_passes_through_it() -> None:
    block, head = online()
    target = Target(block, head)
    views = [view.requires_grad_() for view in images()]
    assert not any(answer.requires_grad for answer in target(views))
    assert not any(parameter.requires_grad for parameter in target.parameters())
    assert all(parameter.requires_grad for parameter in (*block.parameters(), *head.parameters()))


@pytest.mark.parametrize("momentum", [0.0, 0.75, 0.996, 1.0])
def test_it_moves_by_an_exponential_average(momentum: float) -> None:
    block, head = online()
    target = Target(block, head)
    moved(block, head)
    start = numbers(target)
    target.move_towards(block, head, momentum)
    torch.testing.assert_close(numbers(target), start + (1 - momentum), rtol=0, atol=1e-6)
    if momentum in (0.0, 1.0):
        assert torch.equal(numbers(target), start if momentum else numbers(block, head))


def test_only_parameters_move_and_the_online_network_does_not() -> None:
    block, head = online()
    target = Target(block, head)
    moved(block, head)
    for view in images():
        head(block(view))  # moves the running averages of the online network away
    parameters, buffers = numbers(block, head), numbers(block, head, buffers=True)
    own = numbers(target, buffers=True)
    assert not torch.equal(own, buffers)
    target.move_towards(block, head, 0.5)
    assert torch.equal(numbers(target, buffers=True), own)
    assert torch.equal(numbers(block, head), parameters)
    assert torch.equal(numbers(block, head, buffers=True), buffers)


def test_another_network_cannot_be_followed() -> None:
    block, head = online()
    target = Target(block, head)
    with pytest.raises(RuntimeError):
        target.move_towards(block, nn.Identity(), 0.5)


def test_batch_norm_uses_the_batch_and_averages_of_its_own_even_in_evaluation() -> None:
    block, head = online()
    parent = nn.Module()
    parent.online, parent.target = block, Target(block.eval(), head.eval())
    assert all(module.training for module in parent.target.modules())
    parent.eval()
    assert not block.training
    assert all(module.training for module in parent.target.modules())
    before = numbers(block, head, buffers=True)
    answers = parent.target(images())
    assert torch.equal(answers[0], head.train()(block.train()(images()[0])))
    assert not torch.equal(numbers(parent.target, buffers=True), before)


def test_the_views_do_not_share_batch_statistics() -> None:
    target = Target(*online())
    both = target(images())
    one = target(images()[1:])
    assert torch.equal(both[1], one[0])


def test_its_state_can_be_saved_and_restored() -> None:
    block, head = online()
    target = Target(block, head)
    moved(block, head)
    target.move_towards(block, head, 0.9)
    target(images())
    restored = Target(*online())
    assert not torch.equal(numbers(restored), numbers(target))
    restored.load_state_dict(target.state_dict(), strict=True)
    assert torch.equal(restored(images(2))[0], target(images(2))[0])


def test_the_momentum_rises_on_a_cosine_to_one() -> None:
    config = BYOLConfig(momentum=0.9)
    assert target_momentum(config, 0, 100) == pytest.approx(0.9, abs=1e-15)
    assert target_momentum(config, 50, 100) == pytest.approx(0.95)
    assert target_momentum(config, 25, 100) == pytest.approx(1 - 0.1 * (cos(pi / 4) + 1) / 2)
    assert target_momentum(config, 100, 100) == 1.0
    steps = [target_momentum(config, step, 100) for step in range(101)]
    assert steps == sorted(steps)


def test_the_momentum_may_stay() -> None:
    config = BYOLConfig(momentum=0.9, momentum_schedule="constant")
    assert {target_momentum(config, step, 100) for step in (0, 50, 100)} == {0.9}
