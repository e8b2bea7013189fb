"""Computes one step twice from the same state, with freed memory overwritten in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from pipeline.config import Config
from workers.determinism.child import Note
from workers.determinism.memory import Footprint, fill_freed_memory
from workers.determinism.step import Trial, step_checksums
from workers.run.compute import set_up_compute

SEARCHES = 3
"""Number of attempts: a kernel that reads uninitialised memory does not differ every time."""


def differences(config: Config, trial: Trial, device: torch.device, note: Note | None = None) -> list[str]:
    """Names of the results in which the two steps differ, in the order of computation; nothing is noted."""
    set_up_compute(config)
    footprint = Footprint(device)
    first = step_checksums(config, trial, device)
    fill_freed_memory(device, footprint.grown())
    second = step_checksums(config, trial, device)
    return [name for name, total in first.items() if second.get(name) != total]


def first_operation(config: Config, trial: Trial, device: torch.device, note: Note) -> str:
    """The first operation in which two steps differ; empty if none is found, or PyTorch lacks dispatch modes.

    Args:
        config, trial, device: of the step.
        note: gets the name of each operation before it is called, to find the one in which the process died.
    """
    try:
        from workers.determinism.search import OperationRecorder, collecting, first_difference
    except ImportError:  # they are private parts of PyTorch, which may change
        return ""
    set_up_compute(config)
    footprint = Footprint(device)
    for _ in range(SEARCHES):
        recorders: list[OperationRecorder] = []
        for _ in range(2):
            step_checksums(config, trial, device, collecting(recorders, note))
            fill_freed_memory(device, footprint.grown())
        operation = first_difference(*recorders)
        if operation is not None:
            return str(operation)
    return ""


DIFFERENCES, FIRST_OPERATION = "differences", "first_operation"
WORKS: dict[str, Callable[[Config, Trial, torch.device, Note], Any]] = {
    DIFFERENCES: differences,
    FIRST_OPERATION: first_operation,
}
"""What a process can be asked for, by name."""
