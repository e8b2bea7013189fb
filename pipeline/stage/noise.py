"""Noise on activations, seen by a block's own head and by the next block alike.

Released `model.py`: `noise_std * randn * std(x)` after the block's last ReLU; the gradient flows
through `std(x)`. The draw is keyed by (seed, step, stage, view), so it is the same in any process.
"""

from __future__ import annotations

from collections.abc import Callable
from math import cos, pi

import torch
from torch import Tensor, nn

from pipeline.config import NoiseConfig, NoiseKind
from pipeline.randomness import generator
from pipeline.replicas import SOLO, ReplicaGroup, whole_deviation

_IMAGE_DIMENSIONS: dict[str, tuple[int, ...]] = {
    "hw": (2, 3),
    "c": (1,),
    # The released code takes the deviation over height where its comment says channels.
    "c_legacy": (2,),
}
_TOKEN_DIMENSIONS: dict[str, tuple[int, ...]] = {"hw": (1,), "c": (2,)}


def activation_scale(x: Tensor, kind: NoiseKind, team: ReplicaGroup = SOLO) -> Tensor:
    """Unbiased standard deviation of `x`, in a shape that broadcasts against it.

    `all` is taken over the whole batch, of which `x` is what one replica of the team has. `hw` is taken over the
    pixels of `[B, C, H, W]` and the tokens N of `[B, N, D]`, `c` over their channels, C and D; tokens have no height,
    and so no `c_legacy`.
    """
    if kind == "all":
        return whole_deviation(x, team)
    dimensions = _IMAGE_DIMENSIONS if x.ndim == 4 else _TOKEN_DIMENSIONS
    return x.std(dim=dimensions[kind], keepdim=True)


def add_noise(
    x: Tensor, draw: Tensor, kind: NoiseKind, level: float, relative: bool = True, team: ReplicaGroup = SOLO
) -> Tensor:
    """`x` with noise of the standard deviation `level`, in units of the activations' own if `relative`.

    Args:
        x: `[B, C, H, W]`, or tokens `[B, N, D]`.
        draw: standard normal, of the shape of `x`.
        kind: what the activations' standard deviation is taken over; of no effect on absolute noise.
        level: standard deviation of the noise.
        relative: whether `level` multiplies the activations' standard deviation.
        team: the replicas, each of which has its rows of the batch as `x`.
    """
    noise = level * draw
    return x + noise * activation_scale(x, kind, team) if relative else x + noise


class StageNoise(nn.Module):
    """The noise of one stage, drawn from keys.

    Args:
        config: the stage's section `noise`.
        seed: of the run.
        stage: counted from 1.
        team: the replicas of the stage.
    """

    def __init__(self, config: NoiseConfig, seed: int, stage: int, team: ReplicaGroup) -> None:
        super().__init__()
        self.config, self.stage, self.team = config, stage, team
        self.draw: Callable[..., Tensor] = lambda x, *key: standard_normal(x, seed, *key)
        """From a tensor like the whole batch, and step, stage and view, to the draw for all of it."""

    def forward(self, x: Tensor, step: int, view: int, level: float) -> Tensor:
        """`x`, `[B, C, H, W]` or tokens `[B, N, D]`, with noise of the standard deviation `level` unless that is 0.

        Raises:
            ReplicaLost: another replica does not answer.
        """
        if self.config.kind == "none" or level == 0:
            return x
        draw = self.team.rows(self.draw(self.team.whole_like(x), step, self.stage, view))
        return add_noise(x, draw, self.config.kind, level, self.config.relative, self.team)


def noise_level(config: NoiseConfig, step: int, total_steps: int) -> float:
    """Standard deviation at `step`, counted from 0; 0 where the kind is `none`.

    The schedules `linear` and `cosine` go from `std` at step 0 to `final_std` at step `total_steps - 1`.
    """
    if config.kind == "none":
        return 0.0
    progress = step / (total_steps - 1) if total_steps > 1 else 0.0
    match config.schedule:
        case "constant":
            return config.std
        case "linear":
            share = 1 - progress
        case "cosine":
            share = 0.5 * (1 + cos(pi * progress))
    return config.std * share + config.final_std * (1 - share)


def standard_normal(x: Tensor, seed: int, step: int, stage: int, view: int) -> Tensor:
    """The draw for one view of one step: the shape, dtype and device of `x`, which is the whole batch.

    A replica draws for all and takes its rows; only so does it draw what one process would.
    """
    source = generator(x.device, seed, "noise", step, stage, view)
    return torch.randn(x.shape, generator=source, dtype=x.dtype, device=x.device)
