"""Layer-wise adaptive rate scaling (LARS, You et al. 2017) in the three forms of released codes.

They differ in the scaling of a layer (the trust ratio) and in whether the learning rate is part of the momentum
buffer or multiplies it; `_LayerWise` has everything else. Parameter groups (`pipeline.optim.groups`) decide which
parameters have no weight decay and scaling, because the released codes differ in that too.

A step works on lists of parameters (`pipeline.optim.foreach`): it launches a few kernels for each list, and one more
for each parameter that is scaled.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from pipeline.optim import foreach

Tensors = Sequence[Tensor]
Settings = dict[str, Any]
"""Of a parameter group, by the names of the optimizer's arguments."""


class _LayerWise(Optimizer, ABC):
    """One step: weight decay, layer-wise scaling, then momentum.

    With a group's `lars_weight` w the scaling is `w * ratio + (1 - w)`: 1 is LARS, 0 is SGD with momentum.
    Weight decay, L2 as in SGD, is added to the gradient whatever w is. The state of a parameter is the
    buffer `momentum`, of its shape.
    """

    piece_bytes: int | None = None
    """Of the parameters that are worked on at once; None takes what suits their device."""

    def __init__(
        self,
        params: ParamsT,
        lr: float,
        *,
        weight_decay: float = 0.0,
        momentum: float = 0.9,
        eta: float = 0.001,
        lars_weight: float = 1.0,
        **variant: float,
    ) -> None:
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "eta": eta}
        super().__init__(params, {**defaults, "lars_weight": lars_weight, **variant})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient; gradients are not modified."""
        for group in self.param_groups:
            for parameters in foreach.pieces((p for p in group["params"] if p.grad is not None), self.piece_bytes):
                gradients = [p.grad for p in parameters if p.grad is not None]
                buffers = [self._buffer(p) for p in parameters]
                self._descend(parameters, buffers, self._scaled(parameters, gradients, group), group)

    def _buffer(self, p: Tensor) -> Tensor:
        state = self.state[p]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(p)
        buffer: Tensor = state["momentum"]
        return buffer

    def _scaled(self, parameters: Tensors, gradients: Tensors, group: Settings) -> Tensors:
        weight_decay, lars_weight = group["weight_decay"], group["lars_weight"]
        if not weight_decay and not lars_weight:
            return gradients
        updates: Tensors = foreach.add(gradients, parameters, alpha=weight_decay)
        if lars_weight:
            ratios = self._trust_ratios(_norms(parameters), gradients, updates, group)
            factors = ratios if lars_weight == 1 else lars_weight * ratios + (1 - lars_weight)
            foreach.mul_(updates, factors.unbind())
        return updates

    @abstractmethod
    def _trust_ratios(self, p_norms: Tensor, gradients: Tensors, decayed: Tensors, group: Settings) -> Tensor:
        """Factors on `decayed`, the gradients with weight decay, `[N]`; a tensor: a GPU need not synchronise.

        `p_norms` `[N]` are those of the parameters.
        """

    def _descend(self, parameters: Tensors, buffers: Tensors, updates: Tensors, group: Settings) -> None:
        foreach.mul_(buffers, group["momentum"])
        foreach.add_(buffers, updates)
        foreach.add_(parameters, buffers, alpha=-group["lr"])


def _norms(tensors: Tensors) -> Tensor:
    """The 2-norm of each tensor, `[N]`."""
    return torch.stack(list(foreach.norm(tensors)))


class Lars(_LayerWise):
    """LARS as released with Barlow Twins, VICReg and blockwise SSL (`main.py: LARS`).

    The trust ratio is `eta * |p| / |g + weight_decay * p|`, 1 where either norm is 0, without epsilon.
    The learning rate multiplies the buffer, so a change of it acts on all past gradients at once.

    Args:
        params: parameters, or groups of them that may set any of the other arguments.
        lr: learning rate.
        weight_decay: L2, added to the gradient before its norm is taken.
        momentum: of the buffer.
        eta: trust coefficient.
        lars_weight: weight of the scaling, 0 to 1.
    """

    def _trust_ratios(self, p_norms: Tensor, gradients: Tensors, decayed: Tensors, group: Settings) -> Tensor:
        update_norms = _norms(decayed)
        return torch.where((p_norms > 0) & (update_norms > 0), group["eta"] * p_norms / update_norms, 1.0)


class LarsLrInMomentum(Lars):
    """LARS of the BYOL reproduction report (`lars.py: LARSW`); arguments as those of `Lars`.

    The buffer sums updates that are already multiplied by the learning rate of their own step, and is
    subtracted unchanged: this equals `Lars` only while the learning rate is constant.
    """

    def _descend(self, parameters: Tensors, buffers: Tensors, updates: Tensors, group: Settings) -> None:
        foreach.mul_(buffers, group["momentum"])
        foreach.add_(buffers, updates, alpha=group["lr"])
        foreach.sub_(parameters, buffers)


class LarsClipped(_LayerWise):
    """LARS of apex (`LARC.py`) and solo-learn (`lars.py`), with the rate of a layer clipped to `lr`.

    The trust ratio is `min(eta * |p| / (|g| + weight_decay * |p| + eps) / lr, 1)`. Where the parameter is
    all zeros it is 1. Where only the gradient is, those codes skip weight decay too, so it is 0.

    Args:
        params, lr, weight_decay, momentum, lars_weight: as those of `Lars`.
        eta: trust coefficient; larger than that of `Lars`, because clipping bounds the rate.
        eps: keeps the denominator from 0.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float,
        *,
        weight_decay: float = 0.0,
        momentum: float = 0.9,
        eta: float = 0.02,
        lars_weight: float = 1.0,
        eps: float = 1e-8,
    ) -> None:
        super().__init__(
            params, lr, weight_decay=weight_decay, momentum=momentum, eta=eta, lars_weight=lars_weight, eps=eps
        )

    def _trust_ratios(self, p_norms: Tensor, gradients: Tensors, decayed: Tensors, group: Settings) -> Tensor:
        g_norms = _norms(gradients)
        rates = group["eta"] * p_norms / (g_norms + group["weight_decay"] * p_norms + group["eps"])
        # The warm-up starts at lr = 0: tensors divide to infinity there, which is clipped to 1.
        clipped = torch.clamp(rates / group["lr"], max=1.0)
        return torch.where(p_norms > 0, clipped * (g_norms > 0), 1.0)
