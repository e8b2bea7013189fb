"""The expansion of a head in slices of the batch, so that its map never exists whole.

A convolution makes a map of many channels, `[B, 2048, 56, 56]` behind the first block of a ResNet-50, of which only
the mean over the pixels goes on, `[B, 2048]`. Batch norm between them needs the statistics of all images, so there are
two passes over the slices: one for the statistics, one for the means. The backward pass is a third, which computes each
slice's map again.

It needs sums over the whole batch before its first slice, and has them from the forward pass. Let u be the normalised
map and a = weight * u + bias. Of every image and channel the forward pass keeps the number of pixels where a > 0, and
the sum of u over these. The gradients of weight and bias, and the two means in the gradient of batch norm, follow.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.replicas import SOLO, Moments, ReplicaGroup, SynchronisedBatchNorm, move_running_statistics

PIXELS = (2, 3)
OVER_CHANNELS = (0, 2, 3)


def expand_in_chunks(x: Tensor, convolution: nn.Conv2d, norm: _BatchNorm, chunk: int) -> Tensor:
    """Convolution, batch norm, ReLU and mean over the pixels: `[B, C, H, W]` to `[B, width]`.

    The same numbers as one module after the other, but for rounding; batch norm and sums are in float32 at least.

    Args:
        x: what the convolution reads.
        convolution: without a bias.
        norm: with the statistics of the batch, and running ones, which move; the rows of all replicas where it is
            synchronised.
        chunk: images per slice; the last slice may have fewer.

    Raises:
        ReplicaLost: another replica does not answer.
    """
    team = norm.team if isinstance(norm, SynchronisedBatchNorm) else SOLO
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    arguments = (convolution.weight, norm.weight, norm.bias, norm.eps, convolution.padding, chunk, team)
    features, mean, variance = _Expansion.apply(x.to(dtype), *arguments)
    height, width = x.shape[2:]  # the padding keeps them
    move_running_statistics(norm, mean, variance, len(x) * height * width * team.size)
    return features  # type: ignore[no-any-return]


class _Expansion(Function):
    """Gives the features, and the mean and biased variance of the map over all replicas, which have no gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        kernel: Tensor,
        weight: Tensor,
        bias: Tensor,
        eps: float,
        padding: tuple[int, int],
        chunk: int,
        team: ReplicaGroup,
    ) -> tuple[Tensor, Tensor, Tensor]:
        slices = _Slices(x, kernel, padding, chunk)
        mean, variance = team.moments(slices.moments)
        inverse = (variance + eps).rsqrt()
        scale, shift = weight.to(mean.dtype), bias.to(mean.dtype)
        active, summed = (x.new_empty((len(x), len(kernel)), dtype=mean.dtype) for _ in range(2))
        for rows, pixels in slices.maps():
            unit = _normalised(pixels, mean, inverse)
            positive = _affine(unit, scale, shift) > 0
            active[rows], summed[rows] = positive.sum(PIXELS), unit.mul_(positive).sum(PIXELS)
        ctx.save_for_backward(x, kernel, weight, bias, mean, inverse, active, summed)
        ctx.padding, ctx.chunk, ctx.team = padding, chunk, team
        ctx.mark_non_differentiable(mean, variance)
        return ((scale * summed + shift * active) / slices.pixels).to(x.dtype), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, kernel, weight, bias, mean, inverse, active, summed = ctx.saved_tensors
        slices = _Slices(x, kernel, ctx.padding, ctx.chunk)
        scale, shift = weight.to(mean.dtype), bias.to(mean.dtype)
        each = gradient.to(mean.dtype) / slices.pixels  # of every pixel where the ReLU is active
        sums = torch.stack(((each * active).sum(0), (each * summed).sum(0)))
        averages = ctx.team.total(sums) / (len(x) * slices.pixels * ctx.team.size)
        to_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        to_kernel = torch.zeros_like(kernel, dtype=mean.dtype)
        for rows, pixels in slices.maps():
            unit = _normalised(pixels, mean, inverse)
            to_map = (_affine(unit, scale, shift) > 0) * _per_image(each[rows])
            to_map.sub_(_per_channel(averages[0])).sub_(unit.mul_(_per_channel(averages[1])))
            to_map.mul_(_per_channel(scale * inverse))
            to_rows, to_kernel_rows = slices.gradients(rows, to_map.to(x.dtype), to_x is not None)
            to_kernel += to_kernel_rows
            if to_x is not None:
                to_x[rows] = to_rows
        # Those of weight and bias are of the own rows alone: the engine averages parameters' gradients.
        to_bias, to_weight = sums.to(weight.dtype).unbind(0)
        return to_x, to_kernel.to(kernel.dtype), to_weight, to_bias, None, None, None, None


class _Slices:
    """The map that the convolution makes of `x`, slice by slice; each is computed anew whenever it is asked for."""

    def __init__(self, x: Tensor, kernel: Tensor, padding: tuple[int, int], chunk: int) -> None:
        self._x, self._kernel, self._padding = x, kernel.to(x.dtype), list(padding)
        self._rows = [slice(start, min(start + chunk, len(x))) for start in range(0, len(x), chunk)]
        self._dtype = torch.promote_types(x.dtype, torch.float32)
        self.pixels = x.shape[2] * x.shape[3]

    def maps(self) -> Iterator[tuple[slice, Tensor]]:
        """Which images, and their map `[n, width, H, W]`, in float32 at least."""
        for rows in self._rows:
            yield rows, F.conv2d(self._x[rows], self._kernel, padding=self._padding).to(self._dtype)

    def moments(self) -> Moments:
        """Mean and biased variance over all slices, joined as `ReplicaGroup.moments` joins those of replicas."""
        parts = [torch.var_mean(pixels, OVER_CHANNELS, correction=0) for _, pixels in self.maps()]
        variances, means = (torch.stack(each) for each in zip(*parts, strict=True))
        shares = means.new_tensor([(rows.stop - rows.start) / len(self._x) for rows in self._rows]).unsqueeze(1)
        mean = (shares * means).sum(0)
        return mean, (shares * (variances + (means - mean).square())).sum(0)

    def gradients(self, rows: slice, to_map: Tensor, to_input: bool) -> tuple[Tensor, Tensor]:
        """What the gradient of one slice's map is for its images and for the kernel."""
        # aten has no gradient that is added up, so the kernel's are summed by the caller, in float32 at least.
        gradients = torch.ops.aten.convolution_backward(
            to_map, self._x[rows], self._kernel, None, [1, 1], self._padding, [1, 1], False, [0, 0], 1,
            [to_input, True, False],
        )  # fmt: skip
        return gradients[0], gradients[1].to(self._dtype)


def _normalised(pixels: Tensor, mean: Tensor, inverse: Tensor) -> Tensor:
    return (pixels - _per_channel(mean)).mul_(_per_channel(inverse))


def _affine(unit: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return unit * _per_channel(scale) + _per_channel(shift)


def _per_channel(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)


def _per_image(values: Tensor) -> Tensor:
    return values.view(*values.shape, 1, 1)
