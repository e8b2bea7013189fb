"""One step computed twice from one state, with junk freed in between."""

from __future__ import annotations

import torch

from pipeline.config import Config
from workers.determinism.child import Note
from workers.determinism.memory import Footprint, leave_junk
from workers.determinism.step import Trial, step_checksums
from workers.run.compute import set_up_compute

TRIAL_SECONDS = 300.0
"""For two steps; whoever takes longer is trained untried."""
SEARCHES = 3
"""A kernel that reads what nobody wrote does not show it every time."""


def differences(config: Config, trial: Trial, device: torch.device) -> list[str]:
    """What of the two differs, in the order in which it is computed."""
    set_up_compute(config)
    footprint = Footprint(device)
    first = step_checksums(config, trial, device)
    leave_junk(device, footprint.grown())
    second = step_checksums(config, trial, device)
    return [name for name, total in first.items() if second.get(name) != total]


def first_operation(config: Config, trial: Trial, device: torch.device, note: Note) -> str:
    """The first operation in which the two part; empty if none is found, or PyTorch has no dispatch modes any more.

    Args:
        config, trial, device: of the step.
        note: is told each operation before it begins, for whoever wants to know in which the process died.
    """
    try:
        from workers.determinism.search import Recorder, first_difference, keeping
    except ImportError:  # they are private parts of PyTorch
        return ""
    set_up_compute(config)
    footprint = Footprint(device)
    for _ in range(SEARCHES):
        taken: list[Recorder] = []
        for _ in range(2):
            step_checksums(config, trial, device, keeping(taken, note))
            leave_junk(device, footprint.grown())
        operation = first_difference(*taken)
        if operation is not None:
            return str(operation)
    return ""
