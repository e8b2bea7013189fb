"""Differentiable functions of the whole batch, of which every replica has its own rows.

What flows back into them is the gradient of the whole loss times the number of replicas (see `pipeline.replicas`),
and so is what they hand on.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from pipeline.replicas.team import ReplicaGroup


def gather_rows(x: Tensor, team: ReplicaGroup) -> Tensor:
    """The rows `[N / R, ...]` of every replica, in the order of the batch: `[N, ...]`.

    The gradient is expected to be the same on every replica, as that of one loss of all rows is; each keeps its own
    rows of it, times R.

    Raises:
        ReplicaLost: another replica does not answer.
    """
    if team.size == 1:
        return x
    whole: Tensor = _Gather.apply(x, team)
    return whole


def whole_deviation(x: Tensor, team: ReplicaGroup) -> Tensor:
    """Unbiased standard deviation of all elements of all replicas' `x`, without dimensions, as `x.std()` has it.

    Raises:
        ReplicaLost: another replica does not answer.
    """
    if team.size == 1:
        return x.std()
    deviation: Tensor = _Deviation.apply(x, team)
    return deviation


def whole_moments(x: Tensor, dimensions: list[int], team: ReplicaGroup) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of all replicas' `x` over `dimensions`, which have the same sizes on each.

    The variances of the parts and the variance of their means are added (Chan et al. 1983, equation 2.1), which keeps
    the digits that a difference of squares would lose.
    """
    variance, mean = torch.var_mean(x, dimensions, correction=0)
    means, variances = team.all_gather(torch.stack((mean, variance))).unbind(1)
    mean = means.mean(dim=0)
    return mean, variances.mean(dim=0) + (means - mean).square().mean(dim=0)


def accumulated_in(x: Tensor) -> torch.dtype:
    """The dtype of statistics of `x`: its own, but never less than float32."""
    return torch.promote_types(x.dtype, torch.float32)


class _Gather(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, team: ReplicaGroup) -> Tensor:
        ctx.team = team
        return team.all_gather(x).flatten(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.team.rows(gradient) * ctx.team.size, None


class _Deviation(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, team: ReplicaGroup) -> Tensor:
        ctx.team = team
        mean, variance = whole_moments(x.to(accumulated_in(x)), list(range(x.ndim)), team)
        count = x.numel() * team.size
        deviation = (variance * (count / (count - 1))).sqrt()
        ctx.save_for_backward(x, mean, deviation)
        return deviation.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        x, mean, deviation = ctx.saved_tensors
        # The noise of every replica was scaled by this one number, so all their gradients reach all of x.
        total = ctx.team.total(gradient.to(deviation.dtype))
        slope = (total / deviation).masked_fill(deviation == 0, 0) / (x.numel() * ctx.team.size - 1)
        return ((x.to(deviation.dtype) - mean) * slope).to(x.dtype), None
