"""Differentiable functions of the whole batch, of which every replica has its own rows.

The gradient that they receive is that of the whole loss times the number of replicas (see `pipeline.replicas`), and so
is the one that they return.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from pipeline.replicas.team import Moments, ReplicaGroup


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


def own_moments(x: Tensor, dimensions: list[int]) -> Moments:
    """Mean and biased variance of this replica's `x` over `dimensions`."""
    variance, mean = torch.var_mean(x, dimensions, correction=0)
    return mean, variance


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
        mean, variance = team.moments(lambda: own_moments(x.to(accumulated_in(x)), list(range(x.ndim))))
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
