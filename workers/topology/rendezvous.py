"""What the processes of a run must know to find and to trust each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from pipeline.config import Config
from pipeline.precision import DTYPES
from pipeline.shapes import boundary_shapes
from pipeline.stage.noise import noise_level
from pipeline.stage.phases import Phases
from workers.links.base import LinkAddress
from workers.links.messages import TensorSpec
from workers.topology.members import KEY_FILE

START_SECONDS = 300.0
"""All processes must have started, and opened their links, within this."""


@dataclass(frozen=True)
class Rendezvous:
    """One run's meeting point.

    Args:
        private_dir: folder that only this user may enter; holds the sockets. Empty on several hosts.
        key: authenticates every connection of the run.
        rpc_init: where the RPC group meets (`file://` on one host, `env://` on several).
        control: Unix socket, or host and port, of the control channel.
        store: where process groups meet: `file://FOLDER/NAME` on one host, `tcp://HOST:PORT` on several.
        host: that this process listens on, where there is no private folder.
    """

    private_dir: str
    key: bytes = field(repr=False)
    rpc_init: str
    control: str | tuple[str, int]
    store: str
    host: str = ""

    @classmethod
    def on_one_host(cls, private_dir: str) -> Rendezvous:
        """Everything is a file in the private folder, the key too: only this user can open them."""
        folder = Path(private_dir)
        key = bytes.fromhex((folder / KEY_FILE).read_text())
        return cls(private_dir, key, f"file://{folder}/rpc", str(folder / "control"), f"file://{folder}/store")

    def point(self, name: str, sender: str, receiver: str, depth: int) -> LinkAddress:
        """The address of one connection between two processes."""
        path = str(Path(self.private_dir) / name) if self.private_dir else ""
        return LinkAddress(name, sender, receiver, path, self.key, depth, store=self.store, host=self.host)


def link_spec(config: Config, stage: int) -> TensorSpec:
    """What enters `stage` at most: images as bytes into stage 1, activations after that."""
    dtype = torch.uint8 if stage == 1 else DTYPES[config.stage(stage - 1).precision.dtype]
    return TensorSpec(boundary_shapes(config)[stage - 1], dtype)


class NoisePolicy:
    """The noise of every stage at every step, as the coordinator's headers state it."""

    def __init__(self, config: Config, steps_per_epoch: int) -> None:
        self._noises = [config.stage(index).noise for index in range(1, config.num_stages + 1)]
        self._phases = Phases.of(config, steps_per_epoch)

    def levels(self, step: int) -> tuple[float, ...]:
        """Standard deviation of the noise at stage 1, 2, ...; 0 for none."""
        local, span = self._phases.local, self._phases.schedule_steps
        return tuple(noise_level(noise, local(step, index), span) for index, noise in enumerate(self._noises, 1))
