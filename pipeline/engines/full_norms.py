"""Batch norms in a network whose weights are bf16: they cannot mix these with running statistics in fp32."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm


def normalise_with_full_weights(module: nn.Module) -> None:
    """Let every batch norm of `module`, also the synchronised ones, see its weights in fp32; they stay bf16."""
    for norm in module.modules():
        if isinstance(norm, _BatchNorm) and norm.affine:
            norm.forward = _FullWeights(norm)  # type: ignore[assignment]


class _FullWeights:
    """The forward of `norm`, with its weights as they are in fp32."""

    def __init__(self, norm: _BatchNorm) -> None:
        self._norm, self._forward = norm, norm.forward

    def __call__(self, x: Tensor) -> Tensor:
        if self._norm.weight.dtype == torch.float32:  # inside the call below, or not converted
            return self._forward(x)
        full = {name: parameter.float() for name, parameter in self._norm.named_parameters(recurse=False)}
        output: Tensor = functional_call(self._norm, full, (x,))
        return output
