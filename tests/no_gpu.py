"""Where there is no GPU: torch notes every seed, with a stack trace, for one that it may find later."""

from __future__ import annotations

import torch

from launch.prepare.placement import count_gpus


def note_no_seeds() -> None:
    """From now on, in this process and in those that it forks, unless there is a GPU."""
    if not count_gpus({}):  # not asking torch, which could not be forked afterwards
        torch.cuda._lazy_call = torch.xpu._lazy_call = lambda *_, **__: None
