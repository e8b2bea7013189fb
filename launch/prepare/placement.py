"""Which device runs which stage: a pure function of the configuration and the number of GPUs.

Nothing here touches a GPU or imports torch, so the table can be printed and tested anywhere.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import Config
from pipeline.errors import ConfigError
from workers.topology.processes import TrainingProcess, training_processes

DEVICE_FILES = Path("/dev")


@dataclass(frozen=True)
class Placement:
    """One stage and where it runs.

    Args:
        stage: counted from 1.
        units: the stem and residual units that it trains, in order.
        device: as torch names it, for example `cpu` or `cuda:0`.
        others: the devices of its further replicas.
    """

    stage: int
    units: tuple[str, ...]
    device: str
    others: tuple[str, ...] = ()

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices of all its replicas."""
        return (self.device, *self.others)


def place(config: Config, num_gpus: int) -> tuple[Placement, ...]:
    """The device of every stage, in order; `stages.K.device` takes precedence over `device`.

    Raises:
        ConfigError: a GPU was asked for that this machine does not have.
    """
    placements = []
    processes = training_processes(config)
    for index, units in enumerate(config.model.blocks(), 1):
        overrides = config.stages.get(index)
        path = f"stages.{index}.device" if overrides and overrides.device else "device"
        wanted = (overrides.device if overrides else None) or config.device
        ranks = [process.rank for process in processes if index in process.stages]
        device, *others = [_device(wanted, path, index, rank, len(processes), num_gpus) for rank in ranks]
        placements.append(Placement(index, tuple(units), device, tuple(others)))
    return tuple(placements)


def device_of(process: TrainingProcess, placements: Sequence[Placement]) -> str:
    """The device of a training process, as torch names it."""
    return placements[process.stages[0] - 1].devices[process.replica - 1]


def _device(wanted: str, path: str, stage: int, rank: int, num_processes: int, num_gpus: int) -> str:
    if wanted == "cpu" or (wanted == "auto" and num_gpus == 0):
        return "cpu"
    if wanted == "auto":  # neighbours share: fewer boundaries cross from one GPU to another
        return f"cuda:{rank if num_gpus >= num_processes else rank * num_gpus // num_processes}"
    if num_gpus == 0:
        problem = f"got '{wanted}', and this machine has 0 GPUs that may be used"
        raise ConfigError(path, problem, f"Give {path}=cpu or {path}=auto, or make a GPU visible ({_visibility()})")
    number = rank if wanted == "cuda" else int(wanted.removeprefix("cuda:"))
    if number < num_gpus:
        return f"cuda:{number}"
    if wanted == "cuda" and path == "device":
        problem = (
            f"'cuda' gives every process a GPU of its own, but there are {num_processes} processes and {num_gpus} GPUs"
        )
        remedy = "device=auto to share the GPUs, device=cuda:0 to put all on one, device=cpu, or fewer model.cuts"
        raise ConfigError(path, problem, f"Give {remedy}")
    problem = f"got '{wanted}' for stage {stage}, but this machine has {num_gpus} GPUs"
    raise ConfigError(path, problem, f"Give one of {', '.join(f'cuda:{i}' for i in range(num_gpus))}, cpu or auto")


def count_gpus(environment: Mapping[str, str] = os.environ) -> int:
    """The number of GPUs that CUDA will see, without loading CUDA: device files, less those that are hidden.

    `CUDA_VISIBLE_DEVICES` is read as CUDA reads it: the list ends at the first entry that names no GPU.
    """
    files = [entry for entry in _listdir(DEVICE_FILES) if re.fullmatch(r"nvidia\d+", entry)]
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is None or not files:
        return len(files)
    count = 0
    for entry in (part.strip() for part in visible.split(",")):
        usable = int(entry) < len(files) if entry.isdecimal() else entry.startswith(("GPU-", "MIG-"))
        if not usable:
            break
        count += 1
    return count


def _visibility() -> str:
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    return "no /dev/nvidia* file" if hidden is None else f"CUDA_VISIBLE_DEVICES is '{hidden}'"


def _listdir(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
