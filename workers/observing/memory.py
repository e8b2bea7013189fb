"""Memory of a stage's process: resident, and allocated by PyTorch on the GPU."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from workers.control.step_report import MemoryInUse

STATM = Path("/proc/self/statm")
"""Linux only; its second number is the number of resident pages (proc_pid_statm(5))."""


class ProcessMemory:
    """Of the calling process.

    Args:
        device: that it computes on.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._page = os.sysconf("SC_PAGE_SIZE") if STATM.exists() else 0

    def measure(self) -> MemoryInUse:
        """What is in use now, and the peak so far.

        Memory that several processes share counts in each of them. What the GPU's driver holds for itself is in
        no number.
        """
        resident = int(STATM.read_text().split()[1]) * self._page if self._page else None
        if self._device.type != "cuda":
            return MemoryInUse(resident)
        found = torch.cuda.memory_stats(self._device)  # once, because each call reads all of it
        keys = ("reserved_bytes.all.current", "allocated_bytes.all.peak", "num_alloc_retries")
        return MemoryInUse(resident, *(int(found.get(key, 0)) for key in keys))
