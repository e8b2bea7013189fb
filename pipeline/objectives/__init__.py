"""The self-supervised losses, one file each; `OBJECTIVES` is where a new one is named."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from pipeline.config import Objective
from pipeline.objectives.barlow_twins import BarlowTwins


class ObjectiveFn(Protocol):
    """Embeddings `[N, D]` of the two views to a scalar loss and its named, detached terms."""

    def __call__(self, z1: Tensor, z2: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss."""
        ...


OBJECTIVES = {"barlow_twins": BarlowTwins}


def build_objective(config: Objective) -> ObjectiveFn:
    """The objective that `objective.kind` names."""
    return OBJECTIVES[config.kind](config)
