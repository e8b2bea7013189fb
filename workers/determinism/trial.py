"""Runs a trial in a process of its own, as its device wants it: forked for a CPU, in a new interpreter for a GPU."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from functools import partial

import torch

from pipeline.config import Config
from workers.determinism.child import Note, Outcome, run_in_child, run_in_interpreter
from workers.determinism.step import Trial
from workers.determinism.twice import DIFFERENCES, FIRST_OPERATION, WORKS

TRIAL_SECONDS = 300.0
"""Limit for two steps; a stage that takes longer is trained without the check."""
SEARCH_SECONDS = 60.0
"""Limit of a search after a failure, for which the coordinator and the neighbours wait."""
MAIN = "workers.determinism.trial_main"


def differing_results(config: Config, trial: Trial, device: torch.device) -> Outcome:
    """The outcome of `twice.differences`."""
    return _run(DIFFERENCES, config, trial, device)[0]


def differing_operation(config: Config, trial: Trial, device: torch.device) -> tuple[Outcome, str]:
    """The outcome of `twice.first_operation`, and the operation that was called last."""
    return _run(FIRST_OPERATION, config, trial, device)


def last_operation(config: Config, trial: Trial, device: torch.device) -> tuple[Outcome, str]:
    """The same for a process that has computed already, whose threads and GPU a fork would not have."""
    return _run(FIRST_OPERATION, config, trial, device, forks=False, seconds=SEARCH_SECONDS)


def _run(
    work: str,
    config: Config,
    trial: Trial,
    device: torch.device,
    *,
    forks: bool = True,
    seconds: float = TRIAL_SECONDS,
) -> tuple[Outcome, str]:
    with closing(Note()) as note:
        if forks and device.type == "cpu":
            outcome = run_in_child(partial(WORKS[work], config, trial, device, note), seconds)
        else:
            task = {
                "work": work,
                "config": config.model_dump_json(),
                "trial": asdict(trial),
                "device": str(device),
            }
            outcome = run_in_interpreter(MAIN, task, note, seconds)
        return outcome, note.read()
