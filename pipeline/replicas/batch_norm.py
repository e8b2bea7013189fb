"""Batch norm over the whole batch, of which every replica has its own rows.

`torch.nn.SyncBatchNorm` wants a GPU. This one computes anywhere, and in float64 what `torch.nn.BatchNorm` computes on
the whole batch but for rounding: output, gradients, running statistics.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from pipeline.errors import ConfigError
from pipeline.replicas.collectives import accumulated_in, own_moments
from pipeline.replicas.team import ReplicaGroup

_PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class SynchronisedBatchNorm(_BatchNorm):
    """Takes the place of `original`, with its parameters and buffers under their names.

    Where batch norm uses running statistics it communicates nothing. Where it uses those of the batch, which without
    running statistics it does in evaluation too, every replica of the team must run it.

    Args:
        original: one-, two- or three-dimensional.
        team: of two replicas or more; each must give as many rows, and sizes, as the others.
    """

    def __init__(self, original: _BatchNorm, team: ReplicaGroup) -> None:
        # On the meta device, because these tensors are replaced in the next line.
        super().__init__(original.num_features, original.eps, original.momentum, device="meta")
        self._parameters, self._buffers = original._parameters, original._buffers
        self.affine, self.track_running_stats = original.affine, original.track_running_stats
        self.training, self.team = original.training, team

    def forward(self, x: Tensor) -> Tensor:
        """`[N / R, C, ...]` of the same shape on every replica, normalised with the statistics of all of them.

        Raises:
            ReplicaLost: another replica does not answer.
        """
        if not self.training and self.running_mean is not None:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        normalised, mean, variance = _Normalise.apply(x, self.weight, self.bias, self.eps, self.team)
        if self.training and self.track_running_stats:
            move_running_statistics(self, mean, variance, x.numel() // x.shape[1] * self.team.size)
        output: Tensor = normalised
        return output


def move_running_statistics(norm: _BatchNorm, mean: Tensor, variance: Tensor, count: int) -> None:
    """Average the statistics of one more batch into those of `norm`, as torch's own does.

    Args:
        norm: has running statistics.
        mean, variance: of the batch, `[C]`; the variance is the biased one.
        count: numbers in each channel of the batch.
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    share = norm.momentum
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if share is None:
            share = 1.0 / float(norm.num_batches_tracked)
    share = 0.0 if share is None else share
    unbiased = variance * (count / (count - 1))
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), share)
    norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), share)


class _Normalise(Function):
    """Gives the output, and the mean and biased variance of all replicas, `[C]`, which have no gradient."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, team: ReplicaGroup
    ) -> tuple[Tensor, Tensor, Tensor]:
        dtype = accumulated_in(x)
        mean, variance = team.moments(lambda: own_moments(x.to(dtype), [d for d in range(x.ndim) if d != 1]))
        scale, shift = (None if p is None else p.to(dtype) for p in (weight, bias))
        # With given statistics torch's own kernel does the rest, in any memory layout and from half precision.
        normalised = F.batch_norm(x, mean, variance, scale, shift, False, 0.0, eps)
        ctx.save_for_backward(x, weight, mean, (variance + eps).rsqrt())
        ctx.team = team
        ctx.mark_non_differentiable(mean, variance)
        return normalised, mean, variance

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: Tensor, *_: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        x, weight, mean, inverse = ctx.saved_tensors
        dimensions = [d for d in range(x.ndim) if d != 1]
        shape = [1, -1, *[1] * (x.ndim - 2)]
        g = gradient.to(mean.dtype)
        unit = (x.to(mean.dtype) - mean.view(shape)).mul_(inverse.view(shape))
        sums = torch.stack((g.sum(dimensions), (g * unit).sum(dimensions)))
        to_input = None
        if ctx.needs_input_grad[0]:
            average = ctx.team.total(sums) / (x.numel() // x.shape[1] * ctx.team.size)
            slope = inverse if weight is None else inverse * weight
            to_input = (g - average[0].view(shape) - unit.mul_(average[1].view(shape))).mul_(slope.view(shape))
            to_input = to_input.to(x.dtype)
        to_scale = to_shift = None
        if weight is not None:  # of the own rows alone: the engine averages parameters' gradients
            to_shift, to_scale = sums.to(weight.dtype).unbind(0)
        return to_input, to_scale, to_shift, None, None


def synchronise_batch_norms(modules: Iterable[nn.Module | None], team: ReplicaGroup) -> None:
    """Replace every batch norm inside the modules (not one that is itself among them) by one over the whole batch.

    Parameters and names stay. Alone in its team, a stage keeps torch's own. A process group cannot be copied, so
    copies of a module are made before this.

    Raises:
        ConfigError: a layer has statistics of the batch, and is none of torch's own batch norms.
    """
    if team.size == 1:
        return
    replaced: dict[int, SynchronisedBatchNorm] = {}
    for path, parent in [pair for module in modules if module is not None for pair in module.named_modules()]:
        for name, child in parent.named_children():
            if type(child) in _PLAIN:
                assert isinstance(child, _BatchNorm)
                if id(child) not in replaced:
                    replaced[id(child)] = SynchronisedBatchNorm(child, team)
                setattr(parent, name, replaced[id(child)])
            elif isinstance(child, _BatchNorm) or (isinstance(child, _NormBase) and child.track_running_stats):
                raise _cannot_share(f"{path}.{name}".lstrip("."), child)


def _cannot_share(name: str, layer: nn.Module) -> ConfigError:
    kind = f"{type(layer).__module__}.{type(layer).__qualname__}"
    problem = f"'{name}' of the network is a {kind}, whose statistics of the batch replicas cannot join"
    return ConfigError("replicas", problem, "Give 1 for this stage, or use torch.nn.BatchNorm2d in the network")
