"""Number format, memory layout and compilation of a stage, and the scaling of an fp16 loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from pipeline.config import PrecisionConfig

RECOMPILE_LIMIT = 1024
"""Shapes that one function may be compiled for: in a serial run, one per block and image size."""
Callable_ = TypeVar("Callable_", bound=Callable[..., Any])
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Compute:
    """Applies the precision of one stage.

    Args:
        config: section `precision` of the stage.
        device: of the stage.
        dtype: of its parameters: float32, or float64 in tests.
    """

    def __init__(self, config: PrecisionConfig, device: torch.device, dtype: torch.dtype) -> None:
        self.config, self.device = config, device
        self.half = config.dtype != "fp32"
        self.activations = DTYPES[config.dtype] if self.half else dtype
        """Dtype of the activations that the stage sends."""

    def autocast(self) -> AbstractContextManager[Any]:
        """Context for the network's forward; does nothing in fp32."""
        return torch.autocast(self.device.type, self.activations) if self.half else nullcontext()

    def full_precision(self) -> AbstractContextManager[Any]:
        """Context for the objective, which never runs in half precision, whose sums over a batch would be wrong."""
        return torch.autocast(self.device.type, enabled=False) if self.half else nullcontext()

    def in_memory_format(self, x: Tensor) -> Tensor:
        """A feature map `[B, C, H, W]` in the memory format of the configuration."""
        if self.config.channels_last and x.dim() == 4:
            return x.contiguous(memory_format=torch.channels_last)
        return x

    def prepare(self, module: nn.Module, in_parts: bool = False) -> nn.Module:
        """The module to call: its weights in the memory format, and compiled where `precision.compile` is set.

        The module itself keeps its names and parameters; compiling wraps it.

        Args:
            module: a block or a head.
            in_parts: it is not compiled as a whole: its units are, with `compiled`, or it slices the batch.
        """
        if self.config.channels_last:
            module.to(memory_format=torch.channels_last)
        return module if in_parts else self.compiled(module)

    def compiled(self, module: Callable_) -> Callable_:
        """A module, or a part of one, compiled if that was asked for."""
        return _compiled(module) if self.config.compile else module


def _compiled(module: Callable_) -> Callable_:
    """Compile for static shapes.

    Otherwise a second block of the same code in one process would be compiled for dynamic shapes, and its kernels would
    round in another way than those compiled in a process of its own. A run has as many shapes as blocks and image
    sizes; beyond its recompile limit the compiler would silently run uncompiled code.
    """
    from torch._dynamo import config

    for name, value in (("recompile_limit", RECOMPILE_LIMIT), ("accumulated_recompile_limit", 16 * RECOMPILE_LIMIT)):
        if hasattr(config, name):  # otherwise a run of many shapes falls back to uncompiled code
            setattr(config, name, max(value, getattr(config, name)))
    if hasattr(config, "fail_on_recompile_limit_hit"):
        config.fail_on_recompile_limit_hit = True
    return cast(Callable_, torch.compile(module, dynamic=False))


class _JointOptimizer:
    """Several optimizers behind the interface of one, for `GradScaler`."""

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self.optimizers = optimizers

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def step(self) -> None:
        for optimizer in self.optimizers:
            optimizer.step()


class LossScaler:
    """Scales an fp16 loss, and skips the step where a gradient overflowed.

    By default each stage has its own scaler, and an overflow skips the step of that block only. The released code
    uses one scaler for the losses of all blocks, so that an overflow in any block skips the step of every block; pass
    several optimizers for that. A shared scaler makes every stage wait for all others.
    """

    def __init__(self, device: torch.device, optimizers: Sequence[Optimizer], initial_scale: float = 2.0**16) -> None:
        self.scaler = GradScaler(device.type, init_scale=initial_scale)
        self._optimizer = cast(Optimizer, _JointOptimizer(optimizers))

    def scale(self, loss: Tensor) -> Tensor:
        """The scaled loss, to call `backward` on."""
        return self.scaler.scale(loss)

    def unscale(self) -> None:
        """Divide the gradients by the scale, and record whether any overflowed."""
        self.scaler.unscale_(self._optimizer)

    def step(self) -> bool:
        """Step unless a gradient overflowed, and update the scale; returns whether a step was made."""
        before = self.scaler.get_scale()
        self.scaler.step(self._optimizer)
        self.scaler.update()
        return self.scaler.get_scale() >= before
