"""The state of a stage as named tensors and a few numbers: everything that the next step depends on.

Random numbers and learning rates are functions of the step, so they are not part of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from pipeline.engines import OPTIMIZER

if TYPE_CHECKING:
    from pipeline.stage import Stage


def stage_tensors(stage: Stage) -> dict[str, Tensor]:
    """Weights, buffers, the target network and the optimizer's state, by name; not copied.

    The optimizer's tensors are named `optimizer.KEY.PARAMETER`. All replicas of a stage must call this at the same
    step. On the first it is the state of the whole stage, in the form that one process has, and any number of
    replicas can go on from it; on the others the optimizer's part may be missing.
    """
    return {**stage.state_dict(), **stage.engine.tensors()}


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
    stage.engine.load(tensors)
    stage.skips.in_a_row = int(counters["skipped_in_a_row"])
    if stage.scaler and counters["scaler"]:
        stage.scaler.scaler.load_state_dict(counters["scaler"])
