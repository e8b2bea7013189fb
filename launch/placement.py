"""Which device runs which stage: a pure function of the configuration and the number of GPUs.

Nothing here touches a GPU or imports torch, so the table can be printed and tested anywhere.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import Config
from pipeline.errors import ConfigError

DEVICE_FILES = Path("/dev")


@dataclass(frozen=True)
class Placement:
    """One stage and where it runs.

    Args:
        stage: counted from 1.
        units: the stem and residual units that it trains, in order.
        device: as torch names it, for example `cpu` or `cuda:0`.
    """

    stage: int
    units: tuple[str, ...]
    device: str


def place(config: Config, num_gpus: int) -> list[Placement]:
    """The device of every stage, in order; `stages.K.device` goes before `device`.

    Raises:
        ConfigError: a GPU was asked for that this machine does not have.
    """
    placements = []
    for index, units in enumerate(config.model.blocks(), 1):
        overrides = config.stages.get(index)
        path = f"stages.{index}.device" if overrides and overrides.device else "device"
        asked = (overrides.device if overrides else None) or config.device
        device = _device(asked, path, index, config.num_stages, num_gpus)
        placements.append(Placement(index, tuple(units), device))
    return placements


def _device(asked: str, path: str, stage: int, num_stages: int, num_gpus: int) -> str:
    if asked == "cpu" or (asked == "auto" and num_gpus == 0):
        return "cpu"
    if asked == "auto":  # neighbours share: fewer boundaries cross from one GPU to another
        return f"cuda:{stage - 1 if num_gpus >= num_stages else (stage - 1) * num_gpus // num_stages}"
    if num_gpus == 0:
        problem = f"got '{asked}', and this machine has 0 GPUs that may be used"
        raise ConfigError(path, problem, f"Give {path}=cpu or {path}=auto, or make a GPU visible ({_visibility()})")
    number = stage - 1 if asked == "cuda" else int(asked.removeprefix("cuda:"))
    if number < num_gpus:
        return f"cuda:{number}"
    if asked == "cuda" and path == "device":
        problem = f"'cuda' gives every stage a GPU of its own, but there are {num_stages} stages and {num_gpus} GPUs"
        remedy = "device=auto to share the GPUs, device=cuda:0 to put all on one, device=cpu, or fewer model.cuts"
        raise ConfigError(path, problem, f"Give {remedy}")
    problem = f"got '{asked}' for stage {stage}, but this machine has {num_gpus} GPUs"
    raise ConfigError(path, problem, f"Give one of {', '.join(f'cuda:{i}' for i in range(num_gpus))}, cpu or auto")


def count_gpus(environment: Mapping[str, str] = os.environ) -> int:
    """GPUs that CUDA will number from 0, without loading CUDA: device files, less those hidden.

    `CUDA_VISIBLE_DEVICES` is read as CUDA reads it: the list ends at the first entry that names no GPU.
    """
    files = [entry for entry in _listdir(DEVICE_FILES) if re.fullmatch(r"nvidia\d+", entry)]
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is None or not files:
        return len(files)
    count = 0
    for entry in (part.strip() for part in visible.split(",")):
        known = int(entry) < len(files) if entry.isdecimal() else entry.startswith(("GPU-", "MIG-"))
        if not known:
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
