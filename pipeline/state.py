"""The state of a stage as named tensors and a few numbers: everything that the next step depends on.

Random numbers and learning rates are functions of the step, so they are not part of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from pipeline.stage import Stage

OPTIMIZER = "optimizer."


def stage_tensors(stage: Stage) -> dict[str, Tensor]:
    """Weights, buffers, the target network and the optimizer's state, by name; not copied.

    The optimizer's tensors are named `optimizer.KEY.PARAMETER`.
    """
    tensors = dict(stage.state_dict())
    for name, parameter in stage.named_parameters():
        for key, value in stage.optimizer.state.get(parameter, {}).items():
            tensors[f"{OPTIMIZER}{key}.{name}"] = torch.as_tensor(value)
    return tensors


def stage_counters(stage: Stage) -> dict[str, Any]:
    """What is not a tensor: skipped steps in a row, and the scale of an fp16 loss."""
    scaler = stage.scaler.scaler.state_dict() if stage.scaler else None
    return {"skipped_in_a_row": stage.skips.in_a_row, "scaler": scaler}


def restore_stage(stage: Stage, tensors: Mapping[str, Tensor], counters: Mapping[str, Any]) -> None:
    """The inverse of both, in place.

    Raises:
        RuntimeError: the tensors are not those of this stage.
    """
    stage.load_state_dict({name: value for name, value in tensors.items() if not name.startswith(OPTIMIZER)})
    parameters = dict(stage.named_parameters())
    for name, value in tensors.items():
        if not name.startswith(OPTIMIZER):
            continue
        key, _, owner = name.removeprefix(OPTIMIZER).partition(".")
        if owner not in parameters:
            raise RuntimeError(f"there is no parameter '{owner}' that '{name}' could belong to")
        parameter = parameters[owner]
        # Counters of torch's optimizers are numbers on the CPU, wherever the parameter is.
        value = value.to(parameter.device) if value.dim() else value
        stage.optimizer.state[parameter][key] = value.clone()
    stage.skips.in_a_row = int(counters["skipped_in_a_row"])
    if stage.scaler and counters["scaler"]:
        stage.scaler.scaler.load_state_dict(counters["scaler"])
