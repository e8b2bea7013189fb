"""The local losses, one file each; `OBJECTIVES` is where a new one is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.config import objectives as settings
from pipeline.objectives.barlow_twins import BarlowTwins
from pipeline.objectives.base import Embeddings, Objective
from pipeline.objectives.byol import BYOL
from pipeline.objectives.simclr import SimCLR
from pipeline.objectives.supervised import Supervised
from pipeline.objectives.vicreg import VICReg

OBJECTIVES: dict[str, Callable[[Any, int, int, int], Objective]] = {
    "barlow_twins": BarlowTwins,
    "simclr": SimCLR,
    "vicreg": VICReg,
    "byol": BYOL,
    "supervised": Supervised,
}

__all__ = ["OBJECTIVES", "Embeddings", "Objective", "build_objective"]


def build_objective(config: settings.Objective, width: int, seed: int, stage: int) -> Objective:
    """The objective that `objective.kind` names.

    Args:
        config: the stage's section `objective`.
        width: size D of the stage's embeddings.
        seed, stage: key the initialisation of the objective's own weights, if it has any.

    Raises:
        ConfigError: the section does not fit the embeddings.
    """
    return OBJECTIVES[config.kind](config, width, seed, stage)
