"""The state of a stage as named tensors and a few numbers: everything that the next step depends on.

What is measured beside the training (`evaluation.online`) has a state of its own, which snapshots keep too and the
trained weights do not. Random numbers and learning rates are functions of the step, so they are not part of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.engines import OPTIMIZER
from pipeline.stage.stage import Stage

ONLINE = "online."
"""Prefix of the names of tensors of a snapshot that belong to measurements beside the training."""


OPTIMIZER_TENSORS = "optimizer_tensors"
"""The counter of a snapshot for the number of tensors of the optimizer: one that is gone would start from zero."""

DIGEST_CHAIN = "digest_chain"
"""The counter of a snapshot for the digests of all steps before it, see `pipeline.stage.digests`."""


@dataclass(frozen=True)
class Facts:
    """Shape and type of a tensor, as the header of a file has them before memory is taken for it.

    Args:
        shape: of the tensor.
        dtype: of its numbers; None for a type that torch does not have.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype | None

    @classmethod
    def of(cls, tensor: Tensor) -> Facts:
        """Those of a tensor in memory."""
        return cls(tuple(tensor.shape), tensor.dtype)

    def __str__(self) -> str:
        return f"{str(self.dtype or 'an unknown type').removeprefix('torch.')} {list(self.shape)}"


def stage_tensors(stage: Stage) -> dict[str, Tensor]:
    """Weights, buffers, the target network and the optimizer's state, by name; not copied.

    The optimizer's tensors are named `optimizer.KEY.PARAMETER`. All replicas of a stage must call this at the same
    step. On the first it is the state of the whole stage, in the form that one process has, and any number of
    replicas can go on from it; on the others the optimizer's part may be missing.
    """
    return {**stage.state_dict(), **stage.engine.tensors()}


def stage_counters(stage: Stage) -> dict[str, Any]:
    """The part of the state that is no tensor: skipped steps in a row, the scale of an fp16 loss, and the chain of the
    digests where there is one."""
    scaler = stage.scaler.scaler.state_dict() if stage.scaler else None
    chain = {DIGEST_CHAIN: stage.digests.chain} if stage.digests.chain else {}
    return {"skipped_in_a_row": stage.skips.in_a_row, "scaler": scaler, **chain}


def snapshot_tensors(stage: Stage) -> dict[str, Tensor]:
    """The tensors of a snapshot: `stage_tensors`, and `online.NAME` for those of measurements; not copied."""
    measured = stage.online.tensors() if stage.online is not None else {}
    return {**stage_tensors(stage), **{f"{ONLINE}{name}": tensor for name, tensor in measured.items()}}


def network_names(names: Iterable[str]) -> list[str]:
    """Of the tensors of a snapshot or of a trained stage, those of its `state_dict`: weights and buffers."""
    return [name for name in names if not name.startswith((OPTIMIZER, ONLINE))]


def network_misfit(network: Mapping[str, Tensor], stored: Mapping[str, Facts]) -> str | None:
    """The first tensor that is missing, of another shape or type or not the network's, in words; None if all fit.

    An engine that keeps float32 masters of its parameters gives those in the place of what is coarser.
    """
    for name, tensor in network.items():
        expected = Facts.of(tensor)
        if name not in stored:
            return f"it has no '{name}'"
        is_master = tensor.dtype in (torch.bfloat16, torch.float16) and stored[name] == Facts(
            expected.shape, torch.float32
        )
        if stored[name].shape != expected.shape:
            return f"'{name}' is {list(stored[name].shape)} in the file and {list(expected.shape)} in the network"
        if stored[name] != expected and not is_master:
            return f"'{name}' is {stored[name]} in the file and {expected} in the network"
    extra = next((name for name in stored if name not in network), None)
    return None if extra is None else f"the network has no '{extra}'"


def state_misfit(stage: Stage, stored: Mapping[str, Facts], counters: Mapping[str, Any]) -> str | None:
    """The first tensor that the state of a stage lacks, or that does not belong to it, in words; None if all fit."""
    problem = network_misfit(stage.state_dict(), {name: stored[name] for name in network_names(stored)})
    if problem is not None:
        return problem
    parameters = {name: Facts.of(p) for name, p in stage.named_parameters()}
    optimizer = {name: facts for name, facts in stored.items() if name.startswith(OPTIMIZER)}
    keys = dict.fromkeys(name.removeprefix(OPTIMIZER).partition(".")[0] for name in optimizer)
    for name, facts in optimizer.items():
        owner = name.removeprefix(OPTIMIZER).partition(".")[2]
        if owner not in parameters:
            return f"there is no parameter '{owner}' that '{name}' could belong to"
        shape, dtype = parameters[owner].shape, parameters[owner].dtype
        if facts.shape not in ((), shape) or facts.dtype not in (dtype, torch.float32):
            return f"'{name}' is {facts} in the file, and the parameter is {parameters[owner]}"
    count = counters.get(OPTIMIZER_TENSORS, len(optimizer))
    if count == len(optimizer):
        return None
    missing = (f"{OPTIMIZER}{key}.{name}" for key in keys for name in parameters)
    gap = next((f", such as '{name}'" for name in missing if name not in optimizer), "")
    return f"it has {len(optimizer)} tensors of the optimizer and was written with {count}: it lacks some{gap}"


def restore_stage(stage: Stage, tensors: Mapping[str, Tensor], counters: Mapping[str, Any]) -> list[str]:
    """The inverse of all of them, in place.

    Returns:
        Measures of `evaluation.online` that start anew, because the tensors have nothing of them or of another size.

    Raises:
        RuntimeError: the tensors are not those of this stage.
    """
    stage.load_state_dict({name: tensors[name] for name in network_names(tensors)})
    stage.engine.load(tensors)
    stage.skips.in_a_row = int(counters["skipped_in_a_row"])
    stage.digests.chain = str(counters.get(DIGEST_CHAIN, ""))
    if stage.scaler and counters["scaler"]:
        stage.scaler.scaler.load_state_dict(counters["scaler"])
    if stage.online is None:
        return []
    return stage.online.load({name.removeprefix(ONLINE): t for name, t in tensors.items() if name.startswith(ONLINE)})
