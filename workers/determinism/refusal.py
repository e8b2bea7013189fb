"""The error message for a step that is not deterministic: the operation, and a setting that avoids it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from pipeline.config import Config
from pipeline.config.run import StageOverrides
from pipeline.errors import ConfigError
from pipeline.validation.combinations import check_combinations
from workers.determinism.child import Note, Outcome, run_in_child
from workers.determinism.step import Trial
from workers.determinism.twice import TRIAL_SECONDS, differences, first_operation
from workers.topology.processes import stage_name

KEY = "determinism.check"
PLAIN: dict[str, Any] = {"compile": False, "channels_last": False, "tf32": False, "dtype": "fp32"}
"""Settings of `precision` that select other kernels, with their default values; the smallest change first."""


def name_of(trial: Trial) -> str:
    """Name of the stage, or the network, that computes the step."""
    return stage_name(trial.stage) if trial.stage else "the network"


def refusal(config: Config, trial: Trial, device: torch.device, outcome: Outcome) -> ConfigError:
    """Search for the operation, and for a setting that avoids it.

    Args:
        config, trial, device: of the step.
        outcome: of the check.
    """
    place = _place(config, trial, device)
    step = f"a step of {trial.rows} images at {name_of(trial)}"
    if outcome.signal:
        problem = f"{step}, tried before the training, ends its process by signal {outcome.signal}"
        problem += f", in {place}" if place else ""
    else:
        problem = f"{step}, computed twice from one state, has other bits the second time, first in "
        problem += place or outcome.result[0]
    for setting, changed in _other_settings(config, trial):
        if run_in_child(partial(differences, changed, trial, device), TRIAL_SECONDS).result == []:
            return ConfigError(KEY, problem, f"With {setting} it repeats itself. Give that, or {KEY}=false to train so")
    return ConfigError(KEY, problem, f"No setting of precision avoids it. {KEY}=false trains all the same")


def _place(config: Config, trial: Trial, device: torch.device) -> str:
    """The operation in which two computations differ first, or the process dies; empty if it cannot be found."""
    if any(config.stage(index).precision.compile for index in _stages(config, trial)):
        return ""  # a compiled block is one operation
    note = Note()
    outcome = run_in_child(partial(first_operation, config, trial, device, note), TRIAL_SECONDS)
    return note.read() if outcome.signal else outcome.result or ""


def _stages(config: Config, trial: Trial) -> list[int]:
    return [trial.stage] if trial.stage else list(range(1, config.num_stages + 1))


def _other_settings(config: Config, trial: Trial) -> Iterator[tuple[str, Config]]:
    """Configurations with one setting at its default, each with the override that gives it."""
    for key, plain in PLAIN.items():
        if all(getattr(config.stage(index).precision, key) == plain for index in _stages(config, trial)):
            continue
        text = f"precision.{key}={str(plain).lower()}"
        if trial.stage and key != "tf32" and config.num_stages > 1:
            changed, text = _with_override(config, trial.stage, key, plain), f"stages.{trial.stage}.{text}"
        else:
            changed = config.model_copy(update={"precision": config.precision.model_copy(update={key: plain})})
        try:
            check_combinations(changed)
        except ConfigError:
            continue  # such as a scaler shared by all stages
        yield text, changed


def _with_override(config: Config, stage: int, key: str, value: Any) -> Config:
    before = config.stages.get(stage, StageOverrides())
    overrides = before.model_copy(update={"precision": {**before.precision, key: value}})
    return config.model_copy(update={"stages": {**config.stages, stage: overrides}})
