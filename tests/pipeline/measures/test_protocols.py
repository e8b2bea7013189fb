"""The learning rates of the papers' protocols, epoch by epoch, against the formula or PyTorch's own schedule."""

from __future__ import annotations

from math import cos, pi

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR

from pipeline.config.evaluation import EvaluationConfig
from pipeline.measures.protocols import BLOCKWISE, BYOL, LIDAR, PROTOCOLS, Protocol

STEPS = 7


def rates(protocol: Protocol) -> list[list[float]]:
    """Of every step, epoch by epoch."""
    return [
        [protocol.learning_rate(epoch * STEPS + step, STEPS) for step in range(STEPS)]
        for epoch in range(protocol.epochs)
    ]


def test_blockwise_is_a_cosine_that_moves_once_an_epoch() -> None:
    found = rates(BLOCKWISE)
    assert all(set(epoch) == {epoch[0]} for epoch in found)
    expected = [0.1 * (1 + cos(pi * epoch / 100)) / 2 for epoch in range(100)]
    assert [epoch[0] for epoch in found] == pytest.approx(expected, rel=1e-12)
    parameter = torch.zeros(1, requires_grad=True)
    scheduler = CosineAnnealingLR(torch.optim.SGD([parameter], 0.1), 100)  # as the released evaluate.py has it
    for epoch in found:
        assert epoch[0] == pytest.approx(scheduler.get_last_lr()[0], rel=1e-9)
        scheduler.optimizer.step()
        scheduler.step()
    assert (BLOCKWISE.momentum, BLOCKWISE.nesterov, BLOCKWISE.weight_decay) == (0.9, False, 1e-6)
    assert (BLOCKWISE.optimizer, BLOCKWISE.batch_size, len(found)) == ("sgd", 256, 100)


def test_byol_is_a_cosine_that_moves_every_step_and_ends_at_1e_4() -> None:
    found = [rate for epoch in rates(BYOL) for rate in epoch]
    assert len(found) == 90 * STEPS
    expected = [1e-4 + (0.2 - 1e-4) * (1 + cos(pi * step / len(found))) / 2 for step in range(len(found))]
    assert found == pytest.approx(expected, rel=1e-12)
    assert BYOL.learning_rate(len(found), STEPS) == pytest.approx(1e-4, rel=1e-12)
    assert (BYOL.optimizer, BYOL.momentum, BYOL.nesterov, BYOL.weight_decay) == ("sgd", 0.9, True, 0.0)
    assert BYOL.batch_size == 256


def test_lidar_drops_by_10_after_15_of_20_epochs() -> None:
    found = rates(LIDAR)
    assert [epoch[0] for epoch in found] == pytest.approx([0.01] * 15 + [0.001] * 5, rel=1e-12)
    assert all(set(epoch) == {epoch[0]} for epoch in found)
    scheduler = MultiStepLR(torch.optim.Adam([torch.zeros(1, requires_grad=True)], 0.01), [15])
    for epoch in found:
        assert epoch[0] == pytest.approx(scheduler.get_last_lr()[0], rel=1e-9)
        scheduler.optimizer.step()
        scheduler.step()
    assert (LIDAR.optimizer, LIDAR.weight_decay) == ("adam", 0.0)


@pytest.mark.parametrize("epochs", [4, 40])
def test_other_epochs_take_the_schedule_with_them(epochs: int) -> None:
    blockwise, byol, lidar = (protocol.with_epochs(epochs) for protocol in (BLOCKWISE, BYOL, LIDAR))
    half = epochs // 2 * STEPS
    assert len(rates(blockwise)) == epochs
    assert blockwise.learning_rate(half, STEPS) == pytest.approx(0.05)
    assert byol.learning_rate(half, STEPS) == pytest.approx((0.2 + 1e-4) / 2)
    assert [epoch[0] for epoch in rates(lidar)].count(0.01) == 0.75 * epochs
    assert BLOCKWISE.with_epochs(None) is BLOCKWISE


def test_every_protocol_that_can_be_asked_for_is_here() -> None:
    asked = EvaluationConfig.model_validate({"linear": ("quick", *PROTOCOLS)}).linear
    assert asked == ("quick", "blockwise", "byol", "lidar")
    assert all(PROTOCOLS[name].name == name for name in PROTOCOLS)
