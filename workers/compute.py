"""How a process computes: thread count and determinism, set once, the same for every runtime.

Two runs are equal to the bit only if they use as many threads and the same kernels.
"""

from __future__ import annotations

import os

import torch

ALLOCATOR_ENVIRONMENT = {
    # glibc gives big blocks back to the kernel at every free; the page faults then cost more than
    # the arithmetic. Keep what was once allocated.
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "MALLOC_MMAP_THRESHOLD_": str(2**40),
    "MALLOC_TOP_PAD_": str(2**28),
}


def set_up_compute(threads: int) -> None:
    """Use `threads` CPU threads, and only kernels whose result does not vary from run to run."""
    torch.set_num_threads(threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False


def process_environment(threads: int) -> dict[str, str]:
    """The environment a computing process must start with."""
    return {**os.environ, **ALLOCATOR_ENVIRONMENT, "OMP_NUM_THREADS": str(threads)}
