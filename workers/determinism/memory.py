"""Fills freed memory with a pattern, so that a kernel that reads uninitialised memory computes something else."""

from __future__ import annotations

import gc
import resource

import torch

PATTERN = 0x47
"""Value of each byte: a large finite number in every format, because kernels may rely on 0 * x = 0."""
LARGE = 1 << 24
SMALL = tuple(1 << power for power in range(6, 18))
EACH = 64
"""Number of small blocks of each size."""


class Footprint:
    """Measures how many bytes were allocated since its construction."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before = self._peak()

    def grown(self) -> int:
        """Growth of peak memory, in bytes."""
        return max(self._peak() - self._before, 0)

    def _peak(self) -> int:
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def fill_freed_memory(device: torch.device, size: int) -> None:
    """Allocate about `size` bytes, fill them with the pattern and free them, so that the next step reuses them."""
    gc.collect()
    sizes = [LARGE] * (size // LARGE) + [block for block in SMALL for _ in range(EACH)]
    blocks = [torch.full((block,), PATTERN, dtype=torch.uint8, device=device) for block in sizes]
    del blocks
