"""The environment that a computing process must start with; known without torch."""

from __future__ import annotations

import os

ALLOCATOR = {
    # glibc gives big blocks back to the kernel at every free, and the page faults then cost more
    # than the arithmetic: keep what was once allocated.
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "MALLOC_MMAP_THRESHOLD_": str(2**40),
    "MALLOC_TOP_PAD_": str(2**28),
}


def process_environment(threads: int) -> dict[str, str]:
    """Ours, with the allocator's settings and the thread count of a stage."""
    return {**os.environ, **ALLOCATOR, "OMP_NUM_THREADS": str(threads)}
