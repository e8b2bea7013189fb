"""The error message for a step that is not deterministic: the operation, and a setting that avoids it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from pipeline.config import Config
from pipeline.config.run import StageOverrides
from pipeline.errors import ConfigError
from pipeline.validation.combinations import check_combinations
from workers.determinism.child import Outcome
from workers.determinism.step import Trial
from workers.determinism.trial import differing_operation, differing_results, last_operation
from workers.run.no_kernel import BY_CUBLAS, module_of, operation_of, refusal_of, strict_refusal
from workers.run.no_kernel import KEY as LEVEL
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
    place, setting = _place(config, trial, device), _avoiding(config, trial, device)
    step = f"a step of {trial.rows} images at {name_of(trial)}"
    if operation := operation_of(outcome.error):
        return refusal_of(place or operation, step, setting)
    if outcome.signal:
        problem = f"{step}, tried before the training, ends its process by signal {outcome.signal}"
        problem += f", in {place}" if place else ""
    else:
        problem = f"{step}, computed twice from one state, has other bits the second time, first in "
        problem += place or outcome.result[0]
    if setting:
        return ConfigError(KEY, problem, f"With {setting} it repeats itself. Give that, or {KEY}=false to train so")
    return ConfigError(KEY, problem, f"No setting of precision avoids it. {KEY}=false trains all the same")


def in_words(error: BaseException, config: Config, stage: int, step: int | None, device: torch.device) -> BaseException:
    """An error of a step as the user is told of it, if `determinism.level=strict` has caused it; otherwise as it is.

    The traceback of a backward pass does not name the module, so the step is searched for it in another process.

    Args:
        error: that has ended the step.
        config: of the run.
        stage: that computed.
        step: of the run.
        device: of the stage.
    """
    where = stage_name(stage) if step is None else f"{stage_name(stage)} at step {step}"
    refused = strict_refusal(error, where)
    trial = Trial(0 if config.mode == "end_to_end" else stage, config.data.batch_size // config.replicas_of(stage), 0)
    operation = operation_of(str(error))
    if refused is None or operation == BY_CUBLAS or module_of(error) or _is_compiled(config, trial):
        return refused or error
    outcome, last = last_operation(config, trial, device)
    return refusal_of(last, where) if last and operation_of(outcome.error) == operation else refused


def _place(config: Config, trial: Trial, device: torch.device) -> str:
    """The operation in which two computations differ first, or the process ends; empty if it cannot be found."""
    if _is_compiled(config, trial):
        return ""  # a compiled block is one operation
    outcome, last = differing_operation(config, trial, device)
    return last if outcome.signal or operation_of(outcome.error) else outcome.result or ""


def _avoiding(config: Config, trial: Trial, device: torch.device) -> str:
    """The first setting with which the step repeats itself; empty if there is none."""
    settings = _other_settings(config, trial)
    return next((text for text, changed in settings if differing_results(changed, trial, device).result == []), "")


def _is_compiled(config: Config, trial: Trial) -> bool:
    return any(config.stage(index).precision.compile for index in _stages(config, trial))


def _stages(config: Config, trial: Trial) -> list[int]:
    return [trial.stage] if trial.stage else list(range(1, config.num_stages + 1))


def _other_settings(config: Config, trial: Trial) -> Iterator[tuple[str, Config]]:
    """Configurations with one setting at its default, each with the override that gives it."""
    if config.determinism.level == "warn":
        strict = config.determinism.model_copy(update={"level": "strict"})
        yield f"{LEVEL}=strict", config.model_copy(update={"determinism": strict})
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
