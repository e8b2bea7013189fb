"""Memory of a stage's process: resident, and allocated by PyTorch on the GPU."""

from __future__ import annotations

import os
from pathlib import Path

import torch

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

    def measure(self) -> tuple[int | None, int | None]:
        """Bytes that are resident, None without a /proc; bytes that PyTorch's allocator holds, None without a GPU.

        Memory that several processes share counts in each of them. What the GPU's driver holds for itself is in
        neither number.
        """
        resident = int(STATM.read_text().split()[1]) * self._page if self._page else None
        return resident, torch.cuda.memory_reserved(self._device) if self._device.type == "cuda" else None
