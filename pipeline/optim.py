"""LARS as the released code has it, and the learning rate as a pure function of the step."""

from __future__ import annotations

from collections.abc import Iterable
from math import cos, pi

import torch
from torch import Tensor
from torch.optim import Optimizer

from pipeline import config as settings


class Lars(Optimizer):
    """Layer-wise adaptive rate scaling (You et al. 2017; released `main.py: LARS`).

    For a parameter with more than one dimension: weight decay is added to the gradient, the sum is
    scaled by `eta * |p| / |g|` (by 1 where either norm is 0; no epsilon) and goes into the momentum
    buffer, which the learning rate multiplies. One-dimensional parameters (biases, norms) get
    neither weight decay nor scaling.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float, weight_decay: float = 0.0, momentum: float = 0.9, eta: float = 0.001
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "eta": eta})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                update = p.grad if p.ndim == 1 else _scaled_update(p, group["weight_decay"], group["eta"])
                state = self.state[p]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(p)
                state["momentum"].mul_(group["momentum"]).add_(update)
                p.add_(state["momentum"], alpha=-group["lr"])


def _scaled_update(p: Tensor, weight_decay: float, eta: float) -> Tensor:
    assert p.grad is not None
    update = p.grad.add(p, alpha=weight_decay)
    p_norm, update_norm = torch.linalg.vector_norm(p), torch.linalg.vector_norm(update)
    ratio = torch.where((p_norm > 0) & (update_norm > 0), eta * p_norm / update_norm, torch.ones_like(p_norm))
    return update.mul_(ratio)


class WarmupCosine:
    """Learning rate of a step: linear from 0, then half a cosine (released `adjust_learning_rate`).

    Args:
        base_lr: the highest learning rate.
        warmup_steps: steps from 0 to `base_lr`.
        total_steps: the cosine ends here, at `final_ratio * base_lr`.
    """

    def __init__(self, base_lr: float, warmup_steps: float, total_steps: int, final_ratio: float) -> None:
        self.base_lr, self.warmup_steps = base_lr, warmup_steps
        self.total_steps, self.final_ratio = total_steps, final_ratio

    def __call__(self, step: int) -> float:
        """Learning rate of `step`, counted from 0."""
        if step < self.warmup_steps:
            return self.base_lr * step / self.warmup_steps
        progress = (step - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        share = 0.5 * (1 + cos(pi * progress))
        return self.base_lr * share + self.base_lr * self.final_ratio * (1 - share)


def build_schedule(config: settings.Optimizer, batch_size: int, epochs: int, steps_per_epoch: int) -> WarmupCosine:
    """The schedule of a run; `lr` is for a batch of 256 when `scale_lr` is set."""
    base_lr = config.lr * batch_size / 256 if config.scale_lr else config.lr
    return WarmupCosine(base_lr, config.warmup_epochs * steps_per_epoch, epochs * steps_per_epoch, config.final_ratio)


def build_optimizer(config: settings.Optimizer, params: Iterable[Tensor]) -> Lars:
    """The optimizer that `optimizer.kind` names; its learning rate is set before every step."""
    return Lars(params, lr=0.0, weight_decay=config.weight_decay, momentum=config.momentum, eta=config.eta)
