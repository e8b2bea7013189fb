"""What the user is told whose step does not repeat itself: in which operation, and which setting avoids it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from pipeline.config import Config
from pipeline.config.run import StageOverrides
from pipeline.errors import ConfigError
from pipeline.validation.combinations import check_combinations
from workers.determinism.child import Note, Outcome, in_a_child
from workers.determinism.step import Trial
from workers.determinism.twice import TRIAL_SECONDS, differences, first_operation
from workers.topology.members import stage_name

KEY = "determinism.check"
PLAIN: dict[str, Any] = {"compile": False, "channels_last": False, "tf32": False, "dtype": "fp32"}
"""The settings of `precision` that choose other kernels, at their plain values; the smallest change first."""


def name_of(trial: Trial) -> str:
    """Who computes it, in words."""
    return stage_name(trial.stage) if trial.stage else "the network"


def refusal(config: Config, trial: Trial, device: torch.device, outcome: Outcome) -> ConfigError:
    """Search for the operation, and for a setting that avoids it.

    Args:
        config, trial, device: of the step.
        outcome: of the first try.
    """
    where = _place(config, trial, device)
    step = f"a step of {trial.rows} images at {name_of(trial)}"
    if outcome.signal:
        found = f"{step}, tried before the training, ends its process by signal {outcome.signal}"
        found += f", in {where}" if where else ""
    else:
        found = f"{step}, computed twice from one state, has other bits the second time, first in "
        found += where or outcome.result[0]
    for setting, other in _other_settings(config, trial):
        if in_a_child(partial(differences, other, trial, device), TRIAL_SECONDS).result == []:
            return ConfigError(KEY, found, f"With {setting} it repeats itself. Give that, or {KEY}=false to train so")
    return ConfigError(KEY, found, f"No setting of precision avoids it. {KEY}=false trains all the same")


def _place(config: Config, trial: Trial, device: torch.device) -> str:
    """The operation in which two computations part, or the process dies; empty if it cannot be found."""
    if any(config.stage(index).precision.compile for index in _stages(config, trial)):
        return ""  # a compiled block is one operation
    note = Note()
    outcome = in_a_child(partial(first_operation, config, trial, device, note), TRIAL_SECONDS)
    return note.read() if outcome.signal else outcome.result or ""


def _stages(config: Config, trial: Trial) -> list[int]:
    return [trial.stage] if trial.stage else list(range(1, config.num_stages + 1))


def _other_settings(config: Config, trial: Trial) -> Iterator[tuple[str, Config]]:
    """The run with one setting of the stage at its plain value, and what to give for that."""
    for key, plain in PLAIN.items():
        if all(getattr(config.stage(index).precision, key) == plain for index in _stages(config, trial)):
            continue
        text = f"precision.{key}={str(plain).lower()}"
        if trial.stage and key != "tf32" and config.num_stages > 1:
            other, text = _with_override(config, trial.stage, key, plain), f"stages.{trial.stage}.{text}"
        else:
            other = config.model_copy(update={"precision": config.precision.model_copy(update={key: plain})})
        try:
            check_combinations(other)
        except ConfigError:
            continue  # such as a scaler that all stages share
        yield text, other


def _with_override(config: Config, stage: int, key: str, value: Any) -> Config:
    before = config.stages.get(stage, StageOverrides())
    overrides = before.model_copy(update={"precision": {**before.precision, key: value}})
    return config.model_copy(update={"stages": {**config.stages, stage: overrides}})
