"""The state of a stage as named tensors and a few numbers: everything that the next step depends on.

What is measured beside the training (`evaluation.online`) has a state of its own, which snapshots keep too and the
trained weights do not. Random numbers and learning rates are functions of the step, so they are not part of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pipeline.engines import OPTIMIZER
from pipeline.stage import Stage

ONLINE = "online."
"""Begins the names of tensors of a snapshot that belong to what is measured beside the training."""


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


def snapshot_tensors(stage: Stage) -> dict[str, Tensor]:
    """What a snapshot holds: `stage_tensors`, and `online.NAME` for what is measured; not copied."""
    measured = stage.online.tensors() if stage.online is not None else {}
    return {**stage_tensors(stage), **{f"{ONLINE}{name}": tensor for name, tensor in measured.items()}}


def network_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of the tensors of a snapshot or of a trained stage, those of its `state_dict`: weights and buffers."""
    return {name: tensor for name, tensor in tensors.items() if not name.startswith((OPTIMIZER, ONLINE))}


def restore_stage(stage: Stage, tensors: Mapping[str, Tensor], counters: Mapping[str, Any]) -> list[str]:
    """The inverse of all of them, in place.

    Returns:
        Measures of `evaluation.online` that start anew, because the tensors have nothing of them or of another size.

    Raises:
        RuntimeError: the tensors are not those of this stage.
    """
    stage.load_state_dict(network_tensors(tensors))
    stage.engine.load(tensors)
    stage.skips.in_a_row = int(counters["skipped_in_a_row"])
    if stage.scaler and counters["scaler"]:
        stage.scaler.scaler.load_state_dict(counters["scaler"])
    if stage.online is None:
        return []
    return stage.online.load({name.removeprefix(ONLINE): t for name, t in tensors.items() if name.startswith(ONLINE)})
