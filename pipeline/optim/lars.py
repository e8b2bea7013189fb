"""Layer-wise adaptive rate scaling (LARS, You et al. 2017) in the three forms of released codes.

They differ in the scaling of a layer (the trust ratio) and in whether the learning rate is part of the momentum
buffer or multiplies it; `_LayerWise` has everything else. Parameter groups (`pipeline.optim.groups`) decide which
parameters have no weight decay and scaling, because the released codes differ in that too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT


class _LayerWise(Optimizer, ABC):
    """One step: weight decay, layer-wise scaling, then momentum.

    With a group's `lars_weight` w the scaling is `w * ratio + (1 - w)`: 1 is LARS, 0 is SGD with momentum.
    Weight decay, L2 as in SGD, is added to the gradient whatever w is. The state of a parameter is the
    buffer `momentum`, of its shape.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float,
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
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(p)
                self._descend(p, state["momentum"], self._scaled(p, p.grad, group), group)

    def _scaled(self, p: Tensor, gradient: Tensor, group: dict[str, Any]) -> Tensor:
        weight_decay, lars_weight = group["weight_decay"], group["lars_weight"]
        if not weight_decay and not lars_weight:
            return gradient
        update = gradient.add(p, alpha=weight_decay)
        if lars_weight:
            ratio = self._trust_ratio(p, gradient, update, group)
            update.mul_(ratio if lars_weight == 1 else lars_weight * ratio + (1 - lars_weight))
        return update

    @abstractmethod
    def _trust_ratio(self, p: Tensor, gradient: Tensor, decayed: Tensor, group: dict[str, Any]) -> Tensor:
        """Factor on `decayed`, the gradient with weight decay: a 0-d tensor, so that a GPU need not synchronise."""

    def _descend(self, p: Tensor, buffer: Tensor, update: Tensor, group: dict[str, Any]) -> None:
        buffer.mul_(group["momentum"]).add_(update)
        p.add_(buffer, alpha=-group["lr"])


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

    def _trust_ratio(self, p: Tensor, gradient: Tensor, decayed: Tensor, group: dict[str, Any]) -> Tensor:
        p_norm, update_norm = torch.linalg.vector_norm(p), torch.linalg.vector_norm(decayed)
        return torch.where((p_norm > 0) & (update_norm > 0), group["eta"] * p_norm / update_norm, 1.0)


class LarsLrInMomentum(Lars):
    """LARS of the BYOL reproduction report (`lars.py: LARSW`); arguments as those of `Lars`.

    The buffer sums updates that are already multiplied by the learning rate of their own step, and is
    subtracted unchanged: this equals `Lars` only while the learning rate is constant.
    """

    def _descend(self, p: Tensor, buffer: Tensor, update: Tensor, group: dict[str, Any]) -> None:
        buffer.mul_(group["momentum"]).add_(update, alpha=group["lr"])
        p.sub_(buffer)


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
        weight_decay: float = 0.0,
        momentum: float = 0.9,
        eta: float = 0.02,
        lars_weight: float = 1.0,
        eps: float = 1e-8,
    ) -> None:
        super().__init__(params, lr, weight_decay, momentum, eta, lars_weight, eps=eps)

    def _trust_ratio(self, p: Tensor, gradient: Tensor, decayed: Tensor, group: dict[str, Any]) -> Tensor:
        p_norm, g_norm = torch.linalg.vector_norm(p), torch.linalg.vector_norm(gradient)
        rate = group["eta"] * p_norm / (g_norm + group["weight_decay"] * p_norm + group["eps"])
        # The warm-up starts at lr = 0: tensors divide to infinity there, which is clipped to 1.
        clipped = torch.clamp(rate / group["lr"], max=1.0)
        return torch.where(p_norm > 0, clipped * (g_norm > 0), 1.0)
