"""Bytes that autograd keeps for a backward pass."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from pipeline.stage.stage import Stage


def kept_bytes(stage: Stage, step: Callable[[], object]) -> int:
    """What is kept of `step`, which `stage` makes, when its backward pass begins: no weights, nothing twice."""
    weights = {p.untyped_storage().data_ptr() for p in stage.parameters()}
    sizes: dict[int, int] = {}
    alive: list[Tensor] = []
    before, given = True, stage.span

    def span(name: str) -> AbstractContextManager[object]:
        nonlocal before
        before = before and name != "backward"
        return given(name)

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if before and storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)  # so that no other tensor takes its place
        return tensor

    stage.span = span
    try:
        with saved_tensors_hooks(keep, lambda tensor: tensor):
            step()
    finally:
        stage.span = given
    return sum(sizes.values())
