"""The target network of BYOL: a slowly moving copy of a block and its head, whose embeddings are predicted.

As in the released BYOL report (`model.py`, `main.py`): only parameters are averaged, and the target stays in
train mode, where batch norm uses the statistics of the batch and moves running averages of its own. It is part of
the stage's state, so a run that goes on from a checkpoint goes on with the same target.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from math import cos, pi
from typing import Self

import torch
from torch import Tensor, nn

from pipeline.config.objectives import BYOLConfig


class Target(nn.Module):
    """A copy of `block` and `head`, as they are now, that no gradient reaches."""

    def __init__(self, block: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.block, self.head = deepcopy(block), deepcopy(head)
        self.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Stay in train mode whatever `mode` says: predictions are trained on statistics of the batch."""
        return super().train(True)

    def forward(self, views: Iterable[Tensor]) -> tuple[Tensor, ...]:
        """Inputs of the block, `[B, C, H, W]` (or tokens) each, to the embeddings `[B, D]`, without noise.

        One after the other: batch norm is per view. Of more than two views it is shown the first two only, so that
        its running averages are those of large views.
        """
        with torch.no_grad():
            return tuple(self.head(self.block(view)) for view in views)

    def move_towards(self, block: nn.Module, head: nn.Module, momentum: float) -> None:
        """Every parameter becomes `momentum * itself + (1 - momentum) * the online network's`; buffers stay.

        Args:
            block, head: the online network, of the same modules as the copies were made of.
            momentum: 0 copies, 1 leaves the target where it is.
        """
        target: list[Tensor] = [*self.block.parameters(), *self.head.parameters()]
        online: list[Tensor] = [*block.parameters(), *head.parameters()]
        with torch.no_grad():
            torch._foreach_lerp_(target, online, 1.0 - momentum)


def target_momentum(config: BYOLConfig, step: int, total_steps: int) -> float:
    """Momentum of the target at `step`, from 0, of a run of `total_steps`.

    `cosine` is `1 - (1 - m) (cos(pi k / K) + 1) / 2` (Grill et al. 2020, section 3.3): m at step 0, 1 at step K.
    """
    assert config.momentum is not None  # the configuration refuses it, in words
    if config.momentum_schedule == "constant":
        return config.momentum
    return 1.0 - (1.0 - config.momentum) * (cos(pi * step / total_steps) + 1.0) / 2.0


class Follower:
    """Moves a target towards the network that it is a copy of, when the configuration says.

    Args:
        target: is moved.
        block, head: the online network. Held here and not in the target, whose state must not have it twice.
        config: momentum, its schedule and when.
        total_steps: that the schedule spans.
    """

    def __init__(self, target: Target, block: nn.Module, head: nn.Module, config: BYOLConfig, total_steps: int) -> None:
        self.target, self.block, self.head = target, block, head
        self.config, self.total_steps = config, total_steps

    def copy(self) -> None:
        """Make the target equal to the online network, with its buffers."""
        self.target.block.load_state_dict(self.block.state_dict())
        self.target.head.load_state_dict(self.head.state_dict())

    def before_forward(self, step: int) -> None:
        """Before the target's forward of `step`, counted from the first at which the block learns."""
        if self.config.momentum_update == "before_forward":
            self._move(step)

    def after_update(self, step: int) -> None:
        """After the optimizer has moved the online network."""
        if self.config.momentum_update == "after_update":
            self._move(step)

    def _move(self, step: int) -> None:
        self.target.move_towards(self.block, self.head, target_momentum(self.config, step, self.total_steps))
