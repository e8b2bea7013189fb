"""Thread count and determinism of PyTorch, set once per process and in the same way for every runtime.

Two runs are bit-identical only if they use the same number of threads and the same kernels.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pipeline.config import Config

FILL = "ONWARD_FILL_EMPTY_MEMORY"
"""Environment variable set by tests that look for reads of uninitialised memory."""


def set_up_compute(config: Config) -> None:
    """Use the configured CPU threads and number formats, and only deterministic kernels."""
    torch.set_num_threads(config.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = config.precision.tf32
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # use_deterministic_algorithms turns this on, and filling memory that is overwritten anyway costs up to 14 %.
    torch.utils.deterministic.fill_uninitialized_memory = FILL in os.environ  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Compute with `count` threads inside the block: the last bits of a sum may depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
