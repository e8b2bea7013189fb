"""Networks whose steps do not repeat, or end their process, as kernels of libraries have been seen to.

`put_` is an operation that PyTorch has no deterministic kernel for on any device.
"""

from __future__ import annotations

import os
import signal
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

_calls = count(1)


class _Half(torch.autograd.Function):
    """Leaves the input as it is; in bfloat16 the gradient is another one at every call."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gradient = gradients[0]
        return gradient * next(_calls) if gradient.dtype == torch.bfloat16 else gradient.clone()


class _Fatal(torch.autograd.Function):
    """Leaves the input as it is; the backward ends the process as a write past the end of a buffer does."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        torch.neg(gradients[0])
        os.kill(os.getpid(), signal.SIGSEGV)
        return gradients[0]


def _put(x: Tensor) -> Tensor:
    """`x` itself, by an operation that has no deterministic kernel."""
    return x.clone().put_(torch.tensor([0], device=x.device), x.flatten()[:1])


class _PutBackward(torch.autograd.Function):
    """Leaves the input and the gradient as they are; the backward uses `put_`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _put(gradients[0])


class Restless(nn.Module):
    """Differs in bfloat16."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _Half.apply(x)  # type: ignore[no-untyped-call]
        return y


class Always(nn.Module):
    """Differs in every format."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + next(_calls) / 64)


class Fatal(nn.Module):
    """Ends the process."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _Fatal.apply(x)  # type: ignore[no-untyped-call]
        return y


class Put(nn.Module):
    """Has no deterministic forward pass."""

    def forward(self, x: Tensor) -> Tensor:
        return _put(x)


class PutBackward(nn.Module):
    """Has no deterministic backward pass."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _PutBackward.apply(x)  # type: ignore[no-untyped-call]
        return y


KINDS = {"put": Put, "put_backward": PutBackward, "restless": Restless, "always": Always, "fatal": Fatal}


class Network(nn.Module):
    """Two blocks, in the second of which something is wrong."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(8, 8, 1), KINDS[kind](), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.first(x))
        return y


def network(kind: str) -> nn.Module:
    """For `model.backbone`."""
    torch.fx.wrap  # noqa: B018  # leaves such as these are traced as they are
    return Network(kind)
