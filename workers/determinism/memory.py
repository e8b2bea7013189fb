"""Junk in freed memory: whoever reads memory that nobody wrote reads it, and something else than the time before."""

from __future__ import annotations

import gc
import resource

import torch

PATTERN = 0x47
"""Of each byte. A large but finite number in every format: zero times it is zero, as kernels may rely on."""
LARGE = 1 << 24
SMALL = tuple(1 << power for power in range(6, 18))
EACH = 64
"""Small blocks of each size."""


class Footprint:
    """Counts the bytes that have come to be used since it was made."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before = self._peak()

    def grown(self) -> int:
        """Bytes."""
        return max(self._peak() - self._before, 0)

    def _peak(self) -> int:
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def leave_junk(device: torch.device, size: int) -> None:
    """Write about `size` bytes of junk and free them, so that the next step computes in them."""
    gc.collect()
    sizes = [LARGE] * (size // LARGE) + [block for block in SMALL for _ in range(EACH)]
    blocks = [torch.full((block,), PATTERN, dtype=torch.uint8, device=device) for block in sizes]
    del blocks
