"""How a stage computes: number format, memory layout, compilation, and the scaling of an fp16 loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from pipeline.config import Precision

RECOMPILE_LIMIT = 1024
"""Shapes that one piece of code may be compiled for: every block of a serial run has its own, at every image size."""
Callable_ = TypeVar("Callable_", bound=Callable[..., Any])
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Compute:
    """The precision of one stage, applied.

    Args:
        config: of the stage.
        device: it computes on.
        dtype: of its parameters; float32, or float64 where more than the configuration offers is wanted.
    """

    def __init__(self, config: Precision, device: torch.device, dtype: torch.dtype) -> None:
        self.config, self.device = config, device
        self.half = config.dtype != "fp32"
        self.activations = DTYPES[config.dtype] if self.half else dtype
        """Dtype of what the stage sends onward."""

    def autocast(self) -> AbstractContextManager[Any]:
        """Where the network runs; does nothing in fp32."""
        return torch.autocast(self.device.type, self.activations) if self.half else nullcontext()

    def full(self) -> AbstractContextManager[Any]:
        """Where the objective runs: never in half precision, whose sums over a batch would be wrong."""
        return torch.autocast(self.device.type, enabled=False) if self.half else nullcontext()

    def laid_out(self, x: Tensor) -> Tensor:
        """A feature map `[B, C, H, W]` in the memory layout that was asked for."""
        if self.config.channels_last and x.dim() == 4:
            return x.contiguous(memory_format=torch.channels_last)
        return x

    def prepare(self, module: nn.Module, in_units: bool = False) -> nn.Module:
        """The module to call: its weights laid out, and compiled if that was asked for.

        The module itself keeps its names and parameters; compiling wraps it.

        Args:
            module: a block or a head.
            in_units: its units will be compiled one by one, with `compiled`.
        """
        if self.config.channels_last:
            module.to(memory_format=torch.channels_last)
        return module if in_units else self.compiled(module)

    def compiled(self, module: Callable_) -> Callable_:
        """A module, or a part of one, compiled if that was asked for."""
        return _compiled(module) if self.config.compile else module


def _compiled(module: Callable_) -> Callable_:
    """Compiled for the very shapes that come.

    In one process a second block of the same code would else be compiled for shapes of any size, whose kernels round
    in another way than those that a process of its own compiles. A run has as many shapes as it has blocks and sizes of
    images; where that is more than the compiler allows, it would go on without compiling and say nothing.
    """
    from torch._dynamo import config

    for name, value in (("recompile_limit", RECOMPILE_LIMIT), ("accumulated_recompile_limit", 16 * RECOMPILE_LIMIT)):
        if hasattr(config, name):  # else a run of many shapes is slower, and its bits those of no compiler
            setattr(config, name, max(value, getattr(config, name)))
    if hasattr(config, "fail_on_recompile_limit_hit"):
        config.fail_on_recompile_limit_hit = True
    return cast(Callable_, torch.compile(module, dynamic=False))


class _Together:
    """Several optimizers as the one that a scaler expects."""

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

    With several optimizers it is what the released code does: it back-propagates the losses of all blocks
    through one scaler, so an overflow in any block skips the step of every block. One scaler a stage (the
    default) skips only the block concerned; a shared one would make every stage wait for every other.
    """

    def __init__(self, device: torch.device, optimizers: Sequence[Optimizer], initial_scale: float = 2.0**16) -> None:
        self.scaler = GradScaler(device.type, init_scale=initial_scale)
        self._optimizer = cast(Optimizer, _Together(optimizers))

    def scale(self, loss: Tensor) -> Tensor:
        """The loss to differentiate."""
        return self.scaler.scale(loss)

    def unscale(self) -> None:
        """Turn the gradients back to their own size, and note whether any overflowed."""
        self.scaler.unscale_(self._optimizer)

    def step(self) -> bool:
        """Step unless a gradient overflowed, and adapt the scale; whether a step was made."""
        before = self.scaler.get_scale()
        self.scaler.step(self._optimizer)
        self.scaler.update()
        return self.scaler.get_scale() >= before
