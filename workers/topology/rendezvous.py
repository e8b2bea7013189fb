"""What the processes of a run need to find and to authenticate each other."""

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
from workers.topology.processes import KEY_FILE

START_SECONDS = 300.0
"""Limit for starting all processes and opening their links."""


@dataclass(frozen=True, kw_only=True)
class Rendezvous:
    """Addresses and key of one run.

    Args:
        private_dir: folder of the sockets, which only this user may enter. Empty on several hosts.
        key: authenticates every connection of the run.
        rpc_init: `init_method` of the RPC group (`file://` on one host, `env://` on several).
        control: Unix socket, or host and port, of the control channel.
        store: key-value store of process groups: `file://FOLDER/NAME` on one host, `tcp://HOST:PORT` on several.
        host: address that this process listens on, where there is no private folder.
        apart: this process does not see the run directory of the coordinator; of the coordinator: some process.
    """

    private_dir: str
    key: bytes = field(repr=False)
    rpc_init: str
    control: str | tuple[str, int]
    store: str
    host: str = ""
    apart: bool = False

    @classmethod
    def on_one_host(cls, private_dir: str) -> Rendezvous:
        """Everything, also the key, is a file in the private folder, so that only this user can open it."""
        folder = Path(private_dir)
        key = bytes.fromhex((folder / KEY_FILE).read_text())
        return cls(
            private_dir=private_dir,
            key=key,
            rpc_init=f"file://{folder}/rpc",
            control=str(folder / "control"),
            store=f"file://{folder}/store",
        )

    def point(self, name: str, sender: str, receiver: str, depth: int) -> LinkAddress:
        """The address of one link between two processes."""
        path = str(Path(self.private_dir) / name) if self.private_dir else ""
        return LinkAddress(
            name, sender, receiver, path=path, key=self.key, depth=depth, store=self.store, host=self.host
        )


def link_spec(config: Config, stage: int) -> TensorSpec:
    """Largest tensor that enters `stage`: images as bytes into stage 1, activations after that."""
    dtype = torch.uint8 if stage == 1 else DTYPES[config.stage(stage - 1).precision.dtype]
    return TensorSpec(boundary_shapes(config)[stage - 1], dtype)


class NoisePolicy:
    """Noise level of every stage at every step, which the coordinator writes into the header of a batch."""

    def __init__(self, config: Config, steps_per_epoch: int) -> None:
        self._noises = [config.stage(index).noise for index in range(1, config.num_stages + 1)]
        self._phases = Phases.of(config, steps_per_epoch)

    def levels(self, step: int) -> tuple[float, ...]:
        """Standard deviation of the noise at stage 1, 2, ... at `step`; 0 for none."""
        local, span = self._phases.local, self._phases.schedule_steps
        return tuple(noise_level(noise, local(step, index), span) for index, noise in enumerate(self._noises, 1))
