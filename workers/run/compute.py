"""Thread count and determinism of PyTorch, set once per process and in the same way for every runtime.

Two runs are bit-identical only if they use the same number of threads and the same kernels. `strict` is the default
because PyTorch's `warn_only` does more than not to raise: on GPUs, attention then takes a backward pass that does not
repeat. Otherwise both use the same kernels, so that `strict` costs no time over `warn`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from pipeline.config import Config
from workers.run.no_kernel import CUBLAS, note_operations

FILL = "ONWARD_FILL_EMPTY_MEMORY"
"""Environment variable set by tests that look for reads of uninitialised memory."""
_log = logging.getLogger(__name__)


def set_up_compute(config: Config) -> None:
    """Use the configured CPU threads and number formats, and the kernels of `determinism.level`.

    With `warn`, operations without a deterministic kernel go to the log until `note_operations` names another place.
    """
    torch.set_num_threads(config.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = config.precision.tf32
    level = config.determinism.level
    if level != "off":
        os.environ.setdefault(CUBLAS, ":4096:8")
    if level == "warn":
        note_operations(_log.warning)
    torch.use_deterministic_algorithms(level != "off", warn_only=level == "warn")
    # use_deterministic_algorithms turns this on, and filling memory that is overwritten anyway costs up to 14 %.
    torch.utils.deterministic.fill_uninitialized_memory = FILL in os.environ  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = level == "off"


@contextmanager
def settings_kept() -> Iterator[None]:
    """Put back, after the block, what `set_up_compute` sets for the whole process."""
    backends: Any = torch.backends
    deterministic: Any = torch.utils.deterministic
    tf32 = backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32, backends.cudnn.benchmark
    kernels = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fill, cublas = deterministic.fill_uninitialized_memory, os.environ.get(CUBLAS)
    try:
        with cpu_threads(torch.get_num_threads()):
            yield
    finally:
        backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32, backends.cudnn.benchmark = tf32
        torch.use_deterministic_algorithms(kernels[0], warn_only=kernels[1])
        deterministic.fill_uninitialized_memory = fill
        if cublas is None:
            os.environ.pop(CUBLAS, None)


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Compute with `count` threads inside the block: the last bits of a sum may depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
