"""How much memory a device has: GPUs by name or size, those of this machine, and the memory of the machine itself."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from launch.prepare.placement import count_gpus
from pipeline.data.sets.memory import available_bytes
from pipeline.errors import UserError

GIB = 2**30
GPUS: Mapping[str, float] = {
    "h100": 79.1,
    "h200": 139.7,
    "a100-80": 79.1,
    "a100-40": 39.4,
    "l4": 22.0,
    "rtx4090": 23.5,
}
"""GiB that programs can use, which is less than the nominal size: the total capacity that PyTorch reports
(`torch.cuda.mem_get_info`, and its messages when memory runs out), the smallest that was seen with several drivers."""
UNITS = {"GIB": 2**30, "GB": 10**9, "MIB": 2**20, "MB": 10**6}
ASK_SECONDS = 20.0
"""For nvidia-smi, which starts the driver where nothing else has."""
UNKNOWN = 2**60
"""Bytes of a machine that does not say how many it has: whatever is needed fits."""


@dataclass(frozen=True)
class Gpu:
    """GPUs that are not those of this machine.

    Args:
        name: as it was asked for.
        bytes: that programs can use, of one.
        count: how many there are; None for one for each process.
    """

    name: str
    bytes: int
    count: int | None = None


def parse_gpu(text: str) -> Gpu:
    """Read `h100`, `24GiB`, or `4xh100` for a number of them; a size is what PyTorch would report.

    Raises:
        UserError: it is neither a known name nor a size.
    """
    found = re.fullmatch(r"(?:([1-9]\d{0,4})x)?(.+)", text.strip().lower())
    name = found[2] if found else ""
    size = re.fullmatch(r"(\d+(?:\.\d+)?) ?([gm]i?b)", name)
    count = int(found[1]) if found and found[1] else None
    if name in GPUS:
        return Gpu(name, int(GPUS[name] * GIB), count)
    if size and float(size[1]) > 0:
        return Gpu(name, int(float(size[1]) * UNITS[size[2].upper()]), count)
    allowed = f"{', '.join(GPUS)}, or a size such as 24GiB; 4xh100 is four of them"
    raise UserError(f"--gpu: '{text}' is not a GPU that is known here. Allowed: {allowed}")


def sizes_of(devices: Collection[str]) -> dict[str, int] | None:
    """Bytes that each of these devices of this machine has; None if that cannot be found out without using a GPU.

    A GPU has all its memory but what the driver keeps, whoever uses it now; the CPU what is available now.
    """
    sizes = {}
    gpus = [device for device in devices if device != "cpu"]
    if gpus:
        smallest = smallest_gpu()
        if smallest is None:
            return None
        sizes = dict.fromkeys(gpus, smallest)
    if "cpu" in devices:
        sizes["cpu"] = available_memory()
    return sizes


def smallest_gpu() -> int | None:
    """Bytes of the smallest GPU of this machine, without loading CUDA; None if it has none or does not say.

    Where GPUs differ, CUDA may number them in another order than the driver's tool, so that none is assumed larger.
    """
    if not count_gpus():
        return None
    command = ["nvidia-smi", "--query-gpu=memory.total,memory.reserved", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=ASK_SECONDS, check=True).stdout
        rows = [[int(cell) for cell in line.split(",")] for line in answer.splitlines() if line.strip()]
        return min(total - reserved for total, reserved in rows) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError):  # none, too old, or parts of GPUs (MIG)
        return None


def available_memory() -> int:
    """Bytes of host memory that can be had without swapping and within the control groups' limits."""
    available = available_bytes()
    return UNKNOWN if available is None else available
