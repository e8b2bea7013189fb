"""What the processes of a run must know to find and to trust each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from pipeline.config import Config
from pipeline.noise import noise_level
from pipeline.phases import Phases
from pipeline.precision import DTYPES
from pipeline.shapes import boundary_shapes
from workers.links.base import LinkAddress
from workers.messages import TensorSpec

COORDINATOR = "coordinator"
START_SECONDS = 300.0
"""All processes must have started, and opened their links, within this."""


@dataclass(frozen=True)
class Meeting:
    """One run's meeting point.

    Args:
        private_dir: folder that only this user may enter; holds the sockets.
        key: authenticates every connection of the run.
        num_stages: stage processes; the coordinator comes on top.
        rpc_init: where the RPC group meets (`file://` on one host, `env://` on several).
        control: Unix socket, or host and port, of the control channel.
    """

    private_dir: str
    key: bytes = field(repr=False)
    num_stages: int
    rpc_init: str
    control: str | tuple[str, int]

    def link(self, index: int, depth: int) -> LinkAddress:
        """The link into stage `index + 1`; link 0 comes from the coordinator."""
        sender = COORDINATOR if index == 0 else stage_name(index)
        path = str(Path(self.private_dir) / f"link{index}")
        return LinkAddress(f"link{index}", sender, stage_name(index + 1), path, self.key, depth)


def stage_name(index: int) -> str:
    """The process of stage `index`, counted from 1, in words."""
    return f"stage {index}"


def link_spec(config: Config, index: int) -> TensorSpec:
    """What link `index` carries at most: images as bytes into stage 1, activations after that."""
    dtype = torch.uint8 if index == 0 else DTYPES[config.stage(index).precision.dtype]
    return TensorSpec(boundary_shapes(config)[index], dtype)


class NoisePolicy:
    """The noise of every stage at every step, as the coordinator's headers state it."""

    def __init__(self, config: Config, steps_per_epoch: int) -> None:
        self._noises = [config.stage(index).noise for index in range(1, config.num_stages + 1)]
        self._phases = Phases.of(config, steps_per_epoch)

    def levels(self, step: int) -> tuple[float, ...]:
        """Standard deviation of the noise at stage 1, 2, ...; 0 for none."""
        local, span = self._phases.local, self._phases.schedule_steps
        return tuple(noise_level(noise, local(step, index), span) for index, noise in enumerate(self._noises, 1))
