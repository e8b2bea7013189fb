"""How a process computes: thread count and determinism, set once, the same for every runtime.

Two runs are equal to the bit only if they use as many threads and the same kernels.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pipeline.config import Config

FILL = "ONWARD_FILL_EMPTY_MEMORY"
"""Set in the environment by tests that look for reads of memory that nobody wrote."""


def set_up_compute(config: Config) -> None:
    """Use the configured CPU threads and formats, and only kernels whose result does not vary from run to run."""
    torch.set_num_threads(config.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = config.precision.tf32
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Deterministic algorithms bring it along. What no kernel reads need not be filled: that costs up to a seventh.
    torch.utils.deterministic.fill_uninitialized_memory = FILL in os.environ  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """So many threads inside of PyTorch's operations: a sum's last bits may depend on how many share it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
