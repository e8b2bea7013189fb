"""The device that the rows are measured on, and the sizes of what is measured there."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from typing import Any

GIB = 2**30
BATCHES = ((100, 256), (60, 128), (30, 64), (14, 32))
"""Images, for a GPU of more GiB than that."""


@dataclass(frozen=True)
class Setting:
    """One machine.

    Args:
        device: `cuda` or `cpu`.
        small: tiny shapes.
        gpus: names of the GPUs that can be used, none on the CPU.
        memory: bytes of the first GPU; 0 on the CPU.
    """

    device: str
    small: bool
    gpus: tuple[str, ...] = ()
    memory: int = 0

    @property
    def machine(self) -> str:
        """As rows are filed under it."""
        if self.gpus:
            names = sorted(set(self.gpus))
            return ", ".join(f"{self.gpus.count(name)} x {name}" for name in names)
        return f"{os.cpu_count()} cores of {platform.machine()}, {platform.node()}"

    @property
    def of_runs(self) -> str:
        """`device` of a run: the processes share the only GPU, or have one each."""
        return "cpu" if self.device == "cpu" else "cuda:0" if len(self.gpus) == 1 else "auto"

    @property
    def of_tensors(self) -> str:
        """The device of a measurement in one process."""
        return "cpu" if self.device == "cpu" else "cuda:0"

    @property
    def forked(self) -> bool:
        """Whether runs are forked from a process that has imported everything, which CUDA may not like."""
        return self.device == "cpu"

    @property
    def batch(self) -> int:
        """Images of a batch, such that four blocks fit one GPU: those of ResNet-50 take 61 GiB together for 256."""
        if self.small:
            return 8
        return next((images for gib, images in BATCHES if self.memory > gib * GIB), 16)

    @property
    def workers(self) -> int:
        """Of the data loader: all cores but those of four stages and the coordinator, twelve at most."""
        cores = len(os.sched_getaffinity(0))
        return 0 if self.small else max(min(cores - 5, 12), 1)

    @property
    def seconds(self) -> float:
        """Limit of one run, or of one measurement in a process of its own; on a CPU only what hangs reaches it."""
        return 120.0 if self.device == "cuda" else 600.0

    @property
    def half(self) -> bool:
        """Whether it is computed in bfloat16."""
        return self.device == "cuda" and not self.small

    def to_message(self) -> dict[str, Any]:
        """As JSON; `from_message` is the inverse."""
        return asdict(self)

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> Setting:
        """The inverse of `to_message`."""
        return cls(**{**message, "gpus": tuple(message["gpus"])})
