"""Noise on a block's output, seen by its own head and by the next block alike.

Released `model.py`: `noise_std * randn * std(x)` after the block's last ReLU; the gradient flows
through `std(x)`. The draw is keyed by (seed, step, stage, view), so it is the same in any process.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.config import NoiseKind
from pipeline.randomness import generator

_DIMENSIONS: dict[str, tuple[int, ...]] = {
    "hw": (2, 3),
    "c": (1,),
    # The released code takes the deviation over height where its comment says channels.
    "c_legacy": (2,),
}


def activation_scale(x: Tensor, kind: NoiseKind) -> Tensor:
    """Unbiased standard deviation of `x` `[B, C, H, W]`, in a shape that broadcasts against it."""
    return x.std() if kind == "all" else x.std(dim=_DIMENSIONS[kind], keepdim=True)


def add_noise(x: Tensor, draw: Tensor, kind: NoiseKind, level: float) -> Tensor:
    """`x + level * draw * std(x)` for a standard-normal `draw` of the shape of `x`, `[B, C, H, W]`."""
    return x + level * draw * activation_scale(x, kind)


def standard_normal(x: Tensor, seed: int, step: int, stage: int, view: int) -> Tensor:
    """The draw for one view of one step: the shape, dtype and device of `x`."""
    source = generator(x.device, seed, "noise", step, stage, view)
    return torch.randn(x.shape, generator=source, dtype=x.dtype, device=x.device)
